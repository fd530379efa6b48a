"""Files of records: JSON (a list), JSONL, Parquet, CSV."""

from collections.abc import Callable
from functools import partial
from pathlib import Path

import pandas as pd

from mrt_pipeline.errors import InputError

READERS: dict[str, Callable[[Path], pd.DataFrame]] = {
    ".json": partial(pd.read_json, dtype=False, convert_dates=False),
    ".jsonl": partial(pd.read_json, dtype=False, convert_dates=False, lines=True),
    ".parquet": pd.read_parquet,
    ".csv": partial(pd.read_csv, dtype=str, keep_default_na=False),
}


def read_file(path: Path, parameter: str) -> pd.DataFrame:
    """A row a record. parameter: that named the file. Raises InputError for one that is not there or cannot be read."""
    if path.suffix not in READERS:
        raise InputError(f"{path} is none of {', '.join(READERS)}: correct {parameter}")
    if not path.is_file():
        raise InputError(f"there is no file {path}: correct {parameter}")
    try:
        return READERS[path.suffix](path)
    except Exception as error:  # each library has errors of its own
        raise InputError(f"cannot read {path} as {path.suffix[1:]}: {error}") from error
