"""What several runs share is made by the first of them; the others wait for it and take it as it is."""

import shutil
from collections.abc import Callable
from pathlib import Path

import pandas as pd
from filelock import FileLock
from pydantic import BaseModel

from mrt_pipeline.pipelines.keys import configuration_key

_BASE_TABLES = Path("data/02_intermediate/base_tables")
_COLUMNS = 5  # raise when the tables get other columns, so that older ones are made again


def made_once(folder: Path, make: Callable[[Path], None]) -> bool:
    """Let `make` fill a folder that becomes `folder`, unless that exists. Returns whether it was made now.

    The name of the folder must carry the key of all that decides what is in it. It appears only when it is complete,
    and runs side by side wait for the one that makes it.
    """
    folder.parent.mkdir(parents=True, exist_ok=True)
    with FileLock(folder.with_name(f"{folder.name}.lock")):
        if folder.exists():
            return False
        unfinished = folder.with_name(f"{folder.name}.new")
        shutil.rmtree(unfinished, ignore_errors=True)
        unfinished.mkdir()
        make(unfinished)
        unfinished.rename(folder)
    return True


def once_for_base(
    policy: dict[str, str], make: Callable[[], tuple[pd.DataFrame, ...]], **parts: BaseModel | int | str
) -> tuple[pd.DataFrame, ...]:
    """The tables that `make` returns. Those of a base policy are kept: many runs measure the same one in the same way.

    parts: all that decides what is in the tables, besides the policy.
    """
    if policy["name"] != "base":
        return make()
    folder = _BASE_TABLES / configuration_key(policy=policy["key"], columns=_COLUMNS, **parts)

    def write(unfinished: Path) -> None:
        for i, table in enumerate(make()):
            table.to_parquet(unfinished / f"{i}.parquet")

    made_once(folder, write)
    return tuple(pd.read_parquet(path) for path in sorted(folder.glob("*.parquet")))
