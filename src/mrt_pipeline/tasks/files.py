"""Files of records: JSON (a list), JSONL, Parquet, CSV."""

from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import pandas as pd

from mrt_pipeline.errors import InputError

READERS: dict[str, Callable[[Path], pd.DataFrame]] = {
    ".json": partial(pd.read_json, dtype=False, convert_dates=False),
    ".jsonl": partial(pd.read_json, dtype=False, convert_dates=False, lines=True),
    ".parquet": pd.read_parquet,
    ".csv": partial(pd.read_csv, dtype=str, keep_default_na=False),
}


def read_hub(name: str, split: str, what: str) -> Any:
    """A dataset on the hub. what: what `name` is not, else it would have been read. Raises InputError if it cannot."""
    from datasets import load_dataset

    try:
        return load_dataset(name, split=split)
    except Exception as error:  # no connection, no such dataset, no such split: all come as different errors
        raise InputError(
            f"'{name}' is not {what} ({', '.join(READERS)}), and as a dataset on the hub it cannot be loaded: "
            f"{(str(error) or type(error).__name__).splitlines()[0]}. Check the name and the connection, or download "
            "it and give the file"
        ) from error


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
