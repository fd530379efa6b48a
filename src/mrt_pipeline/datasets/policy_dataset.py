"""Policies in the catalog: weights or adapters, tokenizer and card in a folder, wherever fsspec reaches, versioned."""

import contextlib
import os
import shutil
import tempfile
from copy import deepcopy
from pathlib import Path, PurePosixPath
from typing import Any

import fsspec
from kedro.io.core import AbstractVersionedDataset, DatasetError, Version, get_filepath_str, get_protocol_and_path

from mrt_pipeline.policy.policy import CARD, Policy, SavedPolicy, write_card


class PolicyDataset(AbstractVersionedDataset[Policy | SavedPolicy, SavedPolicy]):
    """A folder that holds a policy.

    What is loaded is not opened yet, and is the same object each time, so that the nodes of a run open it once.

    filepath: of the folder; a protocol such as s3:// in front chooses the file system.
    version, credentials, fs_args, metadata: as in Kedro's datasets.
    """

    def __init__(
        self,
        *,
        filepath: str | os.PathLike,
        version: Version | None = None,
        credentials: dict[str, Any] | None = None,
        fs_args: dict[str, Any] | None = None,
        metadata: dict[str, Any] | None = None,
    ):
        protocol, path = get_protocol_and_path(filepath, version)
        self._protocol = protocol
        self._fs = fsspec.filesystem(protocol, **deepcopy(credentials or {}), **deepcopy(fs_args or {}))
        self.metadata = metadata
        self._loaded: dict[Path, SavedPolicy] = {}
        self._copies: dict[str, tempfile.TemporaryDirectory] = {}  # of folders that are elsewhere
        super().__init__(
            filepath=PurePosixPath(path), version=version, exists_function=self._fs.exists, glob_function=self._fs.glob
        )

    def load(self) -> SavedPolicy:
        """The policy, not opened yet."""
        folder = self.local_copy()
        if folder not in self._loaded:
            self._loaded[folder] = SavedPolicy.read(folder)
            self._loaded[folder].kept_by = self._copies
        return self._loaded[folder]

    def save(self, data: Policy | SavedPolicy) -> None:
        """Write a policy; what was at this path before is replaced, but only by one that is complete."""
        path = get_filepath_str(self._get_save_path(), self._protocol)
        parent = Path(path).parent if self._protocol == "file" else None
        if parent:
            parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=parent) as unfinished:
            folder = Path(unfinished) / "policy"
            _write(data, folder)
            if self._fs.exists(path):
                self._fs.rm(path, recursive=True)
            if parent:
                folder.rename(path)
            else:
                self._fs.put(f"{folder}/", f"{path}/", recursive=True)
        self._release()

    def local_copy(self) -> Path:
        """A local folder with its files: its own, or a copy of one that is elsewhere."""
        path = get_filepath_str(self._get_load_path(), self._protocol)
        if self._protocol == "file":
            return Path(path)
        if path not in self._copies:
            self._copies[path] = tempfile.TemporaryDirectory()
            self._fs.get(f"{path}/", f"{self._copies[path].name}/policy/", recursive=True)
        return Path(self._copies[path].name) / "policy"

    def _exists(self) -> bool:
        try:
            return self._fs.exists(get_filepath_str(self._get_load_path(), self._protocol))
        except DatasetError:
            return False

    def _release(self) -> None:
        super()._release()
        self._loaded, self._copies = {}, {}  # a policy that was loaded keeps the copies of before
        self._fs.invalidate_cache(get_filepath_str(self._filepath, self._protocol))

    def _describe(self) -> dict[str, Any]:
        return {"filepath": self._filepath, "protocol": self._protocol, "version": self._version}


def _write(data: Policy | SavedPolicy, folder: Path) -> None:
    if isinstance(data, Policy):
        data.save(folder)
        return
    if data.folder:
        shutil.copytree(data.folder, folder, copy_function=_link)
    folder.mkdir(exist_ok=True)
    (folder / CARD).unlink(missing_ok=True)  # it may be a link to the original's
    write_card(data.card, folder)


def _link(source: str, target: str) -> None:
    """Weights may be large: within data/, where nothing is changed in place, the same file twice; else a copy."""
    real = Path(source).resolve()
    if Path("data").resolve() in real.parents:
        with contextlib.suppress(OSError):
            os.link(real, target)
            return
    shutil.copy2(source, target)
