"""What several runs share is made by the first of them; the others wait for it and take it as it is."""

import shutil
from collections.abc import Callable
from functools import wraps
from pathlib import Path

import pandas as pd
from filelock import FileLock
from pandera.pandas import DataFrameSchema

from mrt_pipeline import schemas
from mrt_pipeline.keys import call_key, configuration_key

_TABLES = Path("data/02_intermediate/shared_tables")
_COLUMNS = {  # tables that have got other columns since are made again
    name: {column: str(kind.dtype) for column, kind in schema.columns.items()}
    for name, schema in vars(schemas).items()
    if isinstance(schema, DataFrameSchema) and "rollout_id" in schema.columns
}


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


def shared(function: Callable) -> Callable:
    """A node's function, of tables, policies and parameters, whose tables are kept and taken from there the next time.

    For what is measured of a base policy: many runs measure the same one in the same way.
    """

    @wraps(function)
    def made_before(*arguments):
        folder = _TABLES / configuration_key(call=call_key(function, *arguments), columns=_COLUMNS)
        made_once(folder, lambda unfinished: _write(function(*arguments), unfinished))
        tables = [pd.read_parquet(path) for path in sorted(folder.glob("*.parquet"))]
        return tables[0] if len(tables) == 1 else tuple(tables)

    return made_before


def _write(made: pd.DataFrame | tuple[pd.DataFrame, ...], folder: Path) -> None:
    for i, table in enumerate(made if isinstance(made, tuple) else (made,)):
        table.to_parquet(folder / f"{i}.parquet")
