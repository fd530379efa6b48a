"""Reading problems with an answer from files or from the Hugging Face hub, whatever their columns are called."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pandas as pd
from pydantic import Field, model_validator

from mrt_pipeline.errors import InputError
from mrt_pipeline.registry import Params
from mrt_pipeline.tasks.answers import find_answer, last_boxed

# Looked for in this order, so that a file with both a short answer and a worked solution gives its answer.
QUESTION_COLUMNS = ("problem", "question", "prompt", "instruction", "input")
ANSWER_COLUMNS = ("answer", "final_answer", "expected_answer", "ground_truth", "target", "solution", "output")
_READERS = {
    ".json": pd.read_json,
    ".jsonl": lambda path, **how: pd.read_json(path, lines=True, **how),
    ".parquet": lambda path, **how: pd.read_parquet(path),
    ".csv": lambda path, **how: pd.read_csv(path, dtype=str, keep_default_na=False),
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
        return Path(self.path).stem if self.is_file else self.path

    @property
    def is_file(self) -> bool:
        """Whether it is a file, by its ending."""
        return Path(self.path).suffix in _READERS


@dataclass(frozen=True)
class RawProblem:
    """A question with its answer, and the row of the source it stood in (0, 1, ...)."""

    question: str
    answer: str
    row: int
    metadata: dict


def read_source(source: ProblemSource, max_unusable: float = 0.01) -> tuple[list[RawProblem], int]:
    """All problems of a source, in its order, and the number of rows left out for want of a question or an answer.

    Raises InputError if the source is not there, is empty, lacks a column, or if a larger share of rows than
    `max_unusable` is without a question or an answer.
    """
    table = _read_table(source)
    if table.empty:
        raise InputError(f"{source.path} has no problems in it")
    question = _column(table, source, "question", source.question, QUESTION_COLUMNS)
    answer = _column(table, source, "answer", source.answer, ANSWER_COLUMNS)
    problems, unusable = [], []
    for row, record in enumerate(table.to_dict("records")):
        asked, gold = str(record[question] or "").strip(), gold_answer(record[answer])
        if asked and gold is not None:
            rest = {k: _plain(v) for k, v in record.items() if k not in (*QUESTION_COLUMNS, *ANSWER_COLUMNS)}
            problems.append(RawProblem(asked, gold, row, {k: v for k, v in rest.items() if v is not None}))
        else:
            unusable.append(row)
    if len(unusable) > max_unusable * len(table):
        rows = ", ".join(map(str, unusable[:5])) + (", ..." if len(unusable) > 5 else "")
        raise InputError(
            f"{source.path}: {len(unusable)} of {len(table)} rows have no question or no answer that can be read from "
            f"column '{answer}' (rows {rows}, counted from 0): name another column, or raise task.max_unusable"
        )
    return problems, len(unusable)


def gold_answer(value) -> str | None:
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
    if not source.is_file:
        return _read_hub(source)
    path = Path(source.path)
    if not path.is_file():
        raise InputError(f"there is no file {path}: correct task.train or task.evaluation")
    reader = _READERS[path.suffix]
    try:
        return reader(path, **({} if path.suffix in (".parquet", ".csv") else {"dtype": False, "convert_dates": False}))
    except Exception as error:
        raise InputError(f"cannot read {path} as {path.suffix[1:]}: {error}") from error


def _read_hub(source: ProblemSource) -> pd.DataFrame:
    from datasets import load_dataset

    try:
        return load_dataset(source.path, split=source.hub_split).to_pandas()
    except Exception as error:  # no connection, no such dataset, no such split: all come as different errors
        endings = ", ".join(_READERS)
        raise InputError(
            f"'{source.path}' is not a problem file ({endings}), and as a dataset on the hub it cannot be loaded: "
            f"{str(error).splitlines()[0] if str(error) else type(error).__name__}. Check the name and the connection, "
            "or download it and give the file"
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


def _plain(value):
    """A value for JSON: numbers and short strings; None for anything else."""
    if isinstance(value, str):
        return value if 0 < len(value) <= 64 else None
    if isinstance(value, bool | int):
        return value
    return value if isinstance(value, float) and math.isfinite(value) else None
