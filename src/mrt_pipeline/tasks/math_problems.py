"""Problems with a mathematical answer, read from files or from the hub.

Training problems that also stand in an evaluation source are found by their normalised text, reported and dropped, as
are repetitions within the training sources; so no evaluation problem is ever trained on. Answers are graded by
math-verify, or by a function of the user's, `grader`.
"""

import logging
import re
from collections.abc import Sequence
from dataclasses import replace
from functools import cached_property
from typing import Literal

import numpy as np
from pydantic import Field, field_validator

from mrt_pipeline.errors import InputError
from mrt_pipeline.registry import Fraction, PositiveInt, code_of
from mrt_pipeline.tasks.base import Grade, Problem
from mrt_pipeline.tasks.math_grader import MathAnswers, OwnGrader
from mrt_pipeline.tasks.problem_files import ProblemSource, read_source

logger = logging.getLogger(__name__)
_FUNCTION = re.compile(r"[^\W\d]\w*(?:\.[^\W\d]\w*)*:[^\W\d]\w*")
_LATEX_SPACING = re.compile(r"\\[,;:! ]|\\(?:left|right|displaystyle|text|mathrm|q?quad)(?![a-zA-Z])|[\s$~{}]+")


class MathProblems(MathAnswers):
    """The task.

    Validation problems are drawn from the training sources, test problems are those of the evaluation sources.
    """

    name: Literal["math"] = "math"
    train: list[ProblemSource] = Field(min_length=1, description="sources of training and validation problems")
    evaluation: list[ProblemSource] = Field(min_length=1, description="sources of held-out problems")
    n_train: PositiveInt | None = Field(default=None, description="training problems; null: all that are left")
    n_validation: PositiveInt = Field(
        default=200, description="problems taken from the training sources for every choice"
    )
    n_test: PositiveInt | None = Field(default=None, description="held-out problems; null: all")
    max_unusable: Fraction = Field(
        default=0.01, description="largest share of a source's rows that may lack a question or an answer"
    )
    grader: str | None = Field(
        default=None,
        description="your own: <module>:<function>, a function grade(answer: str, problem: dict) -> bool of a module "
        "in the working directory or of an installed one; null: answers are compared as mathematics",
    )
    seed: int = Field(default=0, description="of the split")

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
        test = [test[i] for i in sorted(rng.permutation(len(test))[: self.n_test])]
        validation = [replace(problem, split="validation") for problem in train[: self.n_validation]]
        train = train[self.n_validation :][: self.n_train]
        for split, found, wanted in (
            ("validation", validation, self.n_validation),
            ("train", train, self.n_train or 1),
            ("test", test, self.n_test or 1),
        ):
            if len(found) < wanted:
                raise InputError(
                    f"task.n_{split} asks for {wanted} problems, {len(found)} are left: lower it, or add a source"
                )
        return [*train, *validation, *test]

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

    def grade(self, problem: Problem, answer: str) -> Grade:
        """As the user's function says of the whole text, if there is one; else as mathematics."""
        return super().grade(problem, answer) if self.own_grader is None else self.own_grader.grade(problem, answer)

    def _read(self, sources: Sequence[ProblemSource], split: str) -> list[Problem]:
        return [problem for source in sources for problem in read_source(source, split, self.max_unusable)]


def _without_repetitions(train: Sequence[Problem], test: Sequence[Problem]) -> list[Problem]:
    """The first of each training problem that is not a test problem."""
    held_out = {normalize_question(problem.question) for problem in test}
    texts = [normalize_question(problem.question) for problem in train]
    kept: dict[str, Problem] = {}
    for text, problem in zip(texts, train, strict=True):
        if text not in held_out:
            kept.setdefault(text, problem)
    n_held_out = sum(text in held_out for text in texts)
    n_repeated = len(train) - n_held_out - len(kept)
    if n_held_out or n_repeated:
        logger.warning(
            "Training problems dropped: %d that stand in an evaluation source, %d repeated", n_held_out, n_repeated
        )
    return list(kept.values())


def normalize_question(question: str) -> str:
    """A question without spacing, dollars, braces and letter case: what two spellings of one problem have in common."""
    return _LATEX_SPACING.sub("", question).lower().rstrip(".?!")
