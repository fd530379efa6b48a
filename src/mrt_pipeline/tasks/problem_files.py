"""Reading problems with an answer from files or from the Hugging Face hub, whatever their columns are called."""

import logging
import math
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import pandas as pd
from pydantic import Field, model_validator

from mrt_pipeline.errors import InputError
from mrt_pipeline.registry import Params
from mrt_pipeline.tasks.answers import find_answer, last_boxed
from mrt_pipeline.tasks.base import Problem

logger = logging.getLogger(__name__)
# Looked for in this order, so that a file with both a short answer and a worked solution gives its answer.
QUESTION_COLUMNS = ("problem", "question", "prompt", "instruction", "input")
ANSWER_COLUMNS = ("answer", "final_answer", "expected_answer", "ground_truth", "target", "solution", "output")
_READERS: dict[str, Callable[[Path], pd.DataFrame]] = {
    ".json": partial(pd.read_json, dtype=False, convert_dates=False),
    ".jsonl": partial(pd.read_json, dtype=False, convert_dates=False, lines=True),
    ".parquet": pd.read_parquet,
    ".csv": partial(pd.read_csv, dtype=str, keep_default_na=False),
}


class ProblemSource(Params):
    """Where problems come from: a file, or a dataset on the hub. A path alone will do."""

    path: str = Field(
        description="a .json, .jsonl, .parquet or .csv file; without such an ending, a dataset on the hub"
    )
    question: str | None = Field(default=None, description="column; null: one of the usual names")
    answer: str | None = Field(default=None, description="column; null: one of the usual names")
    hub_split: str = Field(default="train", description="split of a dataset on the hub")

    @model_validator(mode="before")
    @classmethod
    def _path_alone(cls, given: Any) -> Any:
        return {"path": given} if isinstance(given, str) else given

    @property
    def name(self) -> str:
        """The file's name without its ending, or the dataset's."""
        return Path(self.path).stem if Path(self.path).suffix in _READERS else self.path


def read_source(source: ProblemSource, split: str, max_unusable: float = 0.01) -> list[Problem]:
    """All problems of a source, in its order and for one split; their ids end in their row (0, 1, ...).

    Rows without a question or an answer are left out with a warning. Raises InputError if the source is not there, is
    empty, lacks a column, or if a larger share of rows than `max_unusable` is without a question or an answer.
    """
    table = _read_table(source)
    if table.empty:
        raise InputError(f"{source.path} has no problems in it")
    question = _column(table, source, "question", source.question, QUESTION_COLUMNS)
    answer = _column(table, source, "answer", source.answer, ANSWER_COLUMNS)
    known = [name for name in table.columns if name not in (*QUESTION_COLUMNS, *ANSWER_COLUMNS)]
    problems, unusable = [], []
    for row, record in enumerate(table.to_dict("records")):
        asked, gold = str(record[question] or "").strip(), gold_answer(record[answer])
        if asked and gold is not None:
            metadata = {name: record[name] for name in known if _is_plain(record[name])}
            problems.append(Problem(f"{source.name}-{row}", source.name, split, asked, (gold,), metadata))
        else:
            unusable.append(row)
    if len(unusable) > max_unusable * len(table):
        rows = ", ".join(map(str, unusable[:5])) + (", ..." if len(unusable) > 5 else "")
        raise InputError(
            f"{source.path}: {len(unusable)} of {len(table)} rows have no question or no answer that can be read from "
            f"column '{answer}' (rows {rows}, counted from 0): name another column, or raise task.max_unusable"
        )
    if unusable:
        logger.warning("%s: %d rows without a question or an answer are left out", source.path, len(unusable))
    return problems


def gold_answer(value: Any) -> str | None:
    r"""The answer in a cell: a number, a short answer, or a solution with `\boxed{}` or `####` in it; None if none."""
    if isinstance(value, bool) or value is None:
        return None
    if isinstance(value, int | float):
        if not math.isfinite(value):
            return None
        return str(int(value)) if float(value).is_integer() else repr(value)
    text = str(value).strip()
    if last_boxed(text) is not None or "####" in text:
        return find_answer(text)
    return text if text and "\n" not in text else None


def _read_table(source: ProblemSource) -> pd.DataFrame:
    path = Path(source.path)
    if path.suffix not in _READERS:
        return _read_hub(source)
    if not path.is_file():
        raise InputError(f"there is no file {path}: correct task.train or task.evaluation")
    try:
        return _READERS[path.suffix](path)
    except Exception as error:
        raise InputError(f"cannot read {path} as {path.suffix[1:]}: {error}") from error


def _read_hub(source: ProblemSource) -> pd.DataFrame:
    from datasets import load_dataset

    try:
        return load_dataset(source.path, split=source.hub_split).to_pandas()
    except Exception as error:  # no connection, no such dataset, no such split: all come as different errors
        raise InputError(
            f"'{source.path}' is not a problem file ({', '.join(_READERS)}), and as a dataset on the hub it cannot be "
            f"loaded: {(str(error) or type(error).__name__).splitlines()[0]}. Check the name and the connection, or "
            "download it and give the file"
        ) from error


def _column(table: pd.DataFrame, source: ProblemSource, what: str, wanted: str | None, usual: Sequence[str]) -> str:
    found = [name for name in ([wanted] if wanted else usual) if name in table.columns]
    if found:
        return found[0]
    missing = f"no column '{wanted}'" if wanted else f"none of the usual columns ({', '.join(usual)})"
    raise InputError(
        f"{source.path} has {missing} for the {what}; it has {', '.join(map(str, table.columns))}: "
        f"give the source as {{path: ..., {what}: <column>}}"
    )


def _is_plain(value: Any) -> bool:
    """Whether it is a number or a short string, which JSON can hold."""
    if isinstance(value, str):
        return 0 < len(value) <= 64
    return isinstance(value, int) or (isinstance(value, float) and math.isfinite(value))
