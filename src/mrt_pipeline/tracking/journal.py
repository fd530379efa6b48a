"""Records on their way to the tracking server: a server that is down or slow must not stop a training.

Every record is written to the run's folder in data/outbox, a JSON file with a copy of the files that belong to it; a
thread delivers and deletes it. What MLflow does not take is tried again while the run goes on, at its end, before the
next run, and by `python -m mrt_pipeline.tracking.resend`.
"""

import contextlib
import itertools
import json
import logging
import os
import shutil
import threading
import time
from collections.abc import Iterable, Iterator
from dataclasses import asdict
from pathlib import Path

import mlflow
from filelock import FileLock, Timeout
from mlflow.exceptions import MlflowException

from mrt_pipeline.errors import InputError
from mrt_pipeline.tracking.failures import is_refusal, is_wrong_setting, reason
from mrt_pipeline.tracking.records import STORED_AS_FILES, Record, RunAddress, begin, deliver, now, size

logger = logging.getLogger(__name__)
RESEND = "python -m mrt_pipeline.tracking.resend"
_LONGEST_PAUSE = 60.0  # seconds between attempts
_SLOW = 5.0  # seconds; a failure that took longer ends a round of attempts
_IN_A_ROW = 3  # so many failures do as well
_METRICS_AT_ONCE = 200  # records of metrics that are delivered as one
_ROOM = 3  # files are kept if so many times their size is free, since a full disk would stop the training


class Journal:
    """The records of one run, in a folder that one process at a time has in hand.

    root: the folder is made in it. timeout: seconds to wait for another process; raises filelock.Timeout then.
    """

    def __init__(self, root: Path, address: RunAddress, timeout: float = -1):
        self.folder = root / address.name
        self._held = FileLock(self.folder / "lock", timeout, thread_local=False)
        self._held.acquire()
        self.folder.mkdir(parents=True, exist_ok=True)
        kept = self.folder / "run.json"
        self.address = RunAddress(**json.loads(kept.read_text())) if kept.exists() else address
        self._numbers = itertools.count(1 + max((int(path.name[:8]) for path in self._waiting()), default=0))
        self._news, self._closing = threading.Event(), threading.Event()
        self._thread = threading.Thread(target=self._deliver_until_closed, daemon=True)
        self._begun = self._away = self._refused = False
        _write(kept, asdict(self.address))

    @property
    def run_id(self) -> str:
        """The run's id on the server or, until it is there, its name."""
        return self.address.run_id or self.address.name

    @property
    def n_waiting(self) -> int:
        """Records that MLflow lacks."""
        return len(self._waiting())

    def waiting(self) -> str:
        """What MLflow lacks, as a sentence; empty if it has everything."""
        n = self.n_waiting
        return f"MLflow lacks {n} records, which wait in {self.folder}: `{RESEND}` sends them." if n else ""

    def start(self) -> None:
        """Begin the run and, in a thread, to deliver; a server that is down gets both later.

        Raises InputError if something answers that is not MLflow, or not to these credentials.
        """
        try:
            self._begin()
        except (MlflowException, OSError) as error:
            uri = mlflow.get_tracking_uri()
            if is_wrong_setting(error) or not uri.startswith("http"):
                self.close()
                raise InputError(
                    f"MLflow at {uri} refuses to be asked ({reason(error)}): look at tracking_uri in mlflow.yml (or "
                    "MLFLOW_TRACKING_URI) and the credentials"
                ) from error
            self._tell(error)
        self._thread.start()

    def send(self, record: Record, files: Path | None = None) -> None:
        """Have a record delivered, with a file or folder as it is now."""
        path = self.folder / f"{next(self._numbers):08d}-{record['kind']}.json"
        try:
            if files is not None:
                _keep(files, path.with_suffix(""))
            _write(path, record)
        except OSError as error:
            logger.error("A record for MLflow (%s) cannot be kept and is lost: %s", record["kind"], error)
        self._news.set()

    def end(self, status: str) -> None:
        """End the run, and close."""
        self.send({"kind": "end", "status": status, "time": now()})
        self.close()

    def close(self) -> None:
        """Deliver what still waits, as long as some of it arrives, and let others do the rest; an empty folder goes."""
        if self._thread.is_alive():
            self._closing.set()
            self._news.set()
            self._thread.join()
        before = 0
        while self.n_waiting not in (0, before):
            before = self.n_waiting
            self._deliver_waiting()
        if not self.n_waiting:
            shutil.rmtree(self.folder, ignore_errors=True)
        self._held.release()

    def _waiting(self) -> list[Path]:
        return list(self.folder.glob("[0-9]*.json"))

    def _begin(self) -> None:
        begin(self.address)
        self._begun = True
        _write(self.folder / "run.json", asdict(self.address))

    def _deliver_until_closed(self) -> None:
        if self._begun:  # what earlier runs could not send comes first
            send_waiting(self.folder.parent)
        pause = 1.0
        while not self._closing.is_set():
            self._news.wait()
            self._news.clear()
            if self._deliver_waiting():
                pause = 1.0
            else:
                self._closing.wait(pause)
                self._news.set()
                pause = min(2 * pause, _LONGEST_PAUSE)

    def _deliver_waiting(self) -> bool:
        """Try each record once, until failures say that the server is down. Returns whether all have arrived."""
        failures = in_a_row = 0
        try:
            if not self._begun:
                self._begin()
        except Exception as error:  # whatever goes wrong between here and there, the training goes on
            self._tell(error)
            return False
        for paths in _together(self._waiting()):
            started = time.monotonic()
            if self._deliver(paths):
                in_a_row = 0
                continue
            failures, in_a_row = failures + 1, in_a_row + 1
            if in_a_row == _IN_A_ROW or time.monotonic() - started > _SLOW:
                break
        if self._away and not failures:
            self._away = False
            logger.info("MLflow answers again and has all records of run %s", self.run_id)
        return not failures

    def _deliver(self, paths: list[Path]) -> bool:
        """Returns whether the records need no further attempt."""
        try:
            record = json.loads(paths[0].read_text())
            for path in paths[1:]:
                record["points"] += json.loads(path.read_text())["points"]
            deliver(self.address, record, next(paths[0].with_suffix("").glob("*"), None))
        except Exception as error:
            if not is_refusal(error):
                self._tell(error)
                return False
            if len(paths) > 1:  # one of them is refused, perhaps
                return not [path for path in paths if not self._deliver([path])]
            if not self._refused:
                logger.error("MLflow refuses a record (%s), which is left out: %s", record["kind"], reason(error))
            self._refused = True
        for path in paths:
            path.unlink()
            shutil.rmtree(path.with_suffix(""), ignore_errors=True)
        return True

    def _tell(self, error: Exception) -> None:
        if not self._away:
            logger.warning(
                "MLflow at %s takes no records (%s). The run goes on; they wait in %s and are sent when it does: later "
                "in the run, before the next one, or by `%s`",
                mlflow.get_tracking_uri(),
                reason(error),
                self.folder,
                RESEND,
            )
        self._away = True


def send_waiting(root: Path) -> int:
    """Deliver what waits below `root`, oldest run first. Returns how many records still do.

    Runs that go on are left to themselves, runs that had begun on another server than the current one as they are.
    """
    still = 0
    for path in sorted(root.glob("*/run.json")):
        with contextlib.suppress(Timeout, FileNotFoundError):  # another process has it in hand, or has sent it
            journal = Journal(root, RunAddress(**json.loads(path.read_text())), timeout=0)
            n = journal.n_waiting
            journal.close()
            if sent := n - journal.n_waiting:
                logger.info("Sent to MLflow: %d records that had waited, of run %s", sent, journal.run_id)
            still += journal.n_waiting
    return still


def _together(paths: Iterable[Path]) -> Iterator[list[Path]]:
    """What is delivered at once, in order, files last: metrics in a row as one, every other record alone."""

    def kind(path: Path) -> str:
        return path.stem.split("-")[1]

    in_order = sorted(paths, key=lambda path: (kind(path) in STORED_AS_FILES, path.name))
    for name, group in itertools.groupby(in_order, kind):
        some, n = list(group), _METRICS_AT_ONCE if name == "metrics" else 1
        yield from (some[i : i + n] for i in range(0, len(some), n))


def _keep(files: Path, folder: Path) -> None:
    if _ROOM * size(files) > shutil.disk_usage(folder.parent).free:
        raise OSError(f"{files.name} has {size(files) / 1e6:.0f} MB and the disk has little left")
    folder.mkdir()
    if files.is_dir():
        shutil.copytree(files, folder / files.name, copy_function=_link)
    else:
        shutil.copy(files, folder)


def _link(source: str, target: str) -> None:
    """Policies may be large, and are never changed in place as tables are; links need one file system."""
    try:
        os.link(os.path.realpath(source), target)
    except OSError:
        shutil.copy(source, target)


def _write(path: Path, content: dict) -> None:
    """So that a process killed meanwhile leaves no half of it."""
    unfinished = path.with_suffix(".new")
    unfinished.write_text(json.dumps(content))
    unfinished.rename(path)
