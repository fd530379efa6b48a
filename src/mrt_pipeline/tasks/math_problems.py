"""Problems with a mathematical answer, from files or from the Hugging Face hub, whatever their columns are called.

Training problems that also stand in an evaluation source are found by their normalised text, reported and dropped, as
are repetitions within the training sources; so no evaluation problem is ever trained on. Answers are graded by
math-verify, or by a function of the user's, `grader`.
"""

import logging
import math
import re
from collections.abc import Sequence
from dataclasses import replace
from functools import cached_property
from pathlib import Path
from typing import Any, Literal

import numpy as np
import pandas as pd
from pydantic import Field, field_validator, model_validator

from mrt_pipeline.errors import InputError
from mrt_pipeline.registry import Fraction, Params, code_of
from mrt_pipeline.tasks.answers import find_answer, last_boxed
from mrt_pipeline.tasks.base import Grade, Problem
from mrt_pipeline.tasks.files import READERS, read_file, read_hub
from mrt_pipeline.tasks.math_grader import MathAnswers, OwnGrader

logger = logging.getLogger(__name__)
_FUNCTION = re.compile(r"[^\W\d]\w*(?:\.[^\W\d]\w*)*:[^\W\d]\w*")
_LATEX_SPACING = re.compile(r"\\[,;:! ]|\\(?:left|right|displaystyle|text|mathrm|q?quad)(?![a-zA-Z])|[\s$~{}]+")
# Looked for in this order, so that a file with both a short answer and a worked solution gives its answer.
_COLUMNS = {
    "question": ("problem", "question", "prompt", "instruction", "input"),
    "answer": ("answer", "final_answer", "expected_answer", "ground_truth", "target", "solution", "output"),
}


class ProblemSource(Params):
    """Where problems come from: a file, or a dataset on the hub. A path alone will do."""

    path: str = Field(description="a .json, .jsonl, .parquet or .csv file; any other name is a dataset on the hub")
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
        return Path(self.path).stem if Path(self.path).suffix in READERS else self.path


class MathProblems(MathAnswers):
    """The task. A source is a path, or {path: ..., question: <column>, answer: <column>}.

    Validation problems are drawn from the training sources, test problems are those of the evaluation sources.
    """

    name: Literal["math"] = "math"
    train: list[ProblemSource] = Field(min_length=1, description="sources of training and validation problems")
    evaluation: list[ProblemSource] = Field(min_length=1, description="sources of held-out problems")
    max_unusable: Fraction = Field(default=0.01, description="largest share of a source's rows without an answer")
    grader: str | None = Field(
        default=None,
        description="your own: <module>:<function>, a function grade(answer: str, problem: dict) -> bool of a module "
        "in the working directory or of an installed one; null: answers are compared as mathematics",
    )

    @field_validator("grader")
    @classmethod
    def _names_a_function(cls, grader: str | None) -> str | None:
        if grader is not None and not _FUNCTION.fullmatch(grader):
            raise ValueError(f"'{grader}' is not <module>:<function>; write it as in task.grader=my_module:grade")
        return grader

    def problems(self) -> list[Problem]:
        """All problems, in the order train, validation, test.

        Raises InputError for sources and for a grader that cannot be used, and if there are too few problems for a
        split.
        """
        if self.own_grader is not None:
            self.own_grader.check()
        names = [source.name for source in (*self.train, *self.evaluation)]
        for name in names:
            if names.count(name) > 1:
                raise InputError(f"more than one source is called '{name}': rename one of the files")
        rng = np.random.default_rng(self.seed)
        test = self._read(self.evaluation, "test")
        train = _without_repetitions(self._read(self.train, "train"), test)
        train = [train[i] for i in rng.permutation(len(train))]
        splits = {
            "validation": [replace(problem, split="validation") for problem in train[: self.n_validation]],
            "train": train[self.n_validation :],
            "test": [test[i] for i in sorted(rng.permutation(len(test))[: self.n_test])],
        }
        return self._sized(splits, "add a source")

    def deciding(self) -> dict:
        """See `Params.deciding`; of a grader also its file."""
        grader = {"grader_code": code_of(self.grader.partition(":")[0])} if self.grader else {}
        return {**super().deciding(), **grader}

    @cached_property
    def own_grader(self) -> OwnGrader | None:
        """What asks the user's function, if there is one."""
        return None if self.grader is None else OwnGrader(self.grading_seconds, self.grader)

    def read(self, text: str) -> str:
        """The answer that the text ends with, in its normalised spelling.

        A grader of one's own may take what has no such answer; then the text itself.
        """
        found = super().read(text)
        return found if found or self.grader is None else text.strip()

    def _graded_together(self, problems: Sequence[Problem], answers: Sequence[str]) -> list[Grade]:
        """As the user's function says of the whole text, if there is one; else as mathematics."""
        together = super()._graded_together if self.own_grader is None else self.own_grader.grade_all
        return together(problems, answers)

    def _read(self, sources: Sequence[ProblemSource], split: str) -> list[Problem]:
        return [problem for source in sources for problem in read_source(source, split, self.max_unusable)]


def _without_repetitions(train: Sequence[Problem], test: Sequence[Problem]) -> list[Problem]:
    """The first of each training problem that is not a test problem."""
    held_out = {normalize_question(problem.question) for problem in test}
    ours = [problem for problem in train if normalize_question(problem.question) not in held_out]
    kept: dict[str, Problem] = {}
    for problem in ours:
        kept.setdefault(normalize_question(problem.question), problem)
    if len(kept) < len(train):
        dropped = len(train) - len(ours), len(ours) - len(kept)
        logger.warning("Training problems dropped: %d that stand in an evaluation source, %d repeated", *dropped)
    return list(kept.values())


def normalize_question(question: str) -> str:
    """A question without spacing, dollars, braces and letter case: what two spellings of one problem have in common."""
    return _LATEX_SPACING.sub("", question).lower().rstrip(".?!")


def read_source(source: ProblemSource, split: str, max_unusable: float = 0.01) -> list[Problem]:
    """All problems of a source, in its order and for one split; their ids end in their row (0, 1, ...).

    Rows without a question or an answer are left out with a warning. Raises InputError if the source is not there, is
    empty, lacks a column, or if a larger share of rows than `max_unusable` is without a question or an answer.
    """
    table = _read_table(source)
    if table.empty:
        raise InputError(f"{source.path} has no problems in it")
    question, answer = _column(table, source, "question"), _column(table, source, "answer")
    known = [name for name in table.columns if all(name not in usual for usual in _COLUMNS.values())]
    problems, unusable = [], []
    for row, record in enumerate(table.to_dict("records")):
        asked, gold = str(record[question] or "").strip(), gold_answer(record[answer])
        if asked and gold is not None:
            metadata = {name: record[name] for name in known if _is_plain(record[name])}
            problems.append(Problem(f"{source.name}-{row}", source.name, split, asked, (gold,), metadata))
        else:
            unusable.append(row)
    if len(unusable) > max_unusable * len(table):
        raise InputError(
            f"{source.path}: {len(unusable)} of {len(table)} rows have no question or no answer that can be read from "
            f"column '{answer}', such as rows {', '.join(map(str, unusable[:5]))} (counted from 0): name another "
            "column, or raise task.max_unusable"
        )
    if unusable:
        logger.warning("%s: %d rows without a question or an answer are left out", source.path, len(unusable))
    return problems


def gold_answer(value: Any) -> str | None:
    r"""The answer in a cell: a number, a short answer, or a solution with `\boxed{}` or `####` in it; None if none."""
    if value is None or isinstance(value, bool) or (isinstance(value, float) and not math.isfinite(value)):
        return None
    text = str(int(value) if isinstance(value, float) and value.is_integer() else value).strip()
    if last_boxed(text) is not None or "####" in text:
        return find_answer(text)
    return text if text and "\n" not in text else None


def _read_table(source: ProblemSource) -> pd.DataFrame:
    path = Path(source.path)
    if path.suffix in READERS:
        return read_file(path, "task.train or task.evaluation")
    return read_hub(source.path, source.hub_split, "a problem file").to_pandas()


def _column(table: pd.DataFrame, source: ProblemSource, what: str) -> str:
    wanted, usual = getattr(source, what), _COLUMNS[what]
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
