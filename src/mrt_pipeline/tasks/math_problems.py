"""Problems with a mathematical answer, read from files or from the hub.

Training problems that also stand in an evaluation source are found by their normalised text, reported and dropped, as
are repetitions within the training sources; so no evaluation problem is ever trained on. Answers are graded by
math-verify.
"""

import logging
import re
from collections import Counter
from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from mrt_pipeline.errors import InputError
from mrt_pipeline.tasks.base import Problem
from mrt_pipeline.tasks.math_grader import MathAnswers
from mrt_pipeline.tasks.problem_files import ProblemSource, read_source

logger = logging.getLogger(__name__)
_LATEX_SPACING = re.compile(r"\\[,;:! ]|\\(?:left|right|displaystyle|text|mathrm|q?quad)(?![a-zA-Z])|[\s$~{}]+")


class MathProblems(MathAnswers):
    """The task.

    train, evaluation: sources. Validation problems are drawn from the training ones, test problems are those of the
    evaluation sources. n_train, n_validation, n_test: problems of each split; None for n_train, n_test: all there are.
    max_unusable: see `read_source`. grading_seconds: deadline of one comparison. seed: of the choice of problems.
    """

    name = "math"

    def __init__(
        self,
        train: Sequence[ProblemSource],
        evaluation: Sequence[ProblemSource],
        n_train: int | None = None,
        n_validation: int = 200,
        n_test: int | None = None,
        max_unusable: float = 0.01,
        grading_seconds: float = 5.0,
        seed: int = 0,
    ):
        self.train, self.evaluation = list(train), list(evaluation)
        self.n_train, self.n_validation, self.n_test = n_train, n_validation, n_test
        self.max_unusable, self.seed = max_unusable, seed
        super().__init__(grading_seconds)

    def problems(self) -> list[Problem]:
        """All problems, in the order train, validation, test.

        Raises InputError for sources that cannot be used, and if there are too few problems for a split.
        """
        repeated = [name for name, n in Counter(s.name for s in (*self.train, *self.evaluation)).items() if n > 1]
        if repeated:
            raise InputError(f"more than one source is called '{repeated[0]}': rename one of the files")
        rng = np.random.default_rng(self.seed)
        test = self._read(self.evaluation, "test")
        train = self._without_repetitions(self._read(self.train, "train"), test)
        train = [train[i] for i in rng.permutation(len(train))]
        n_kept = len(test) if self.n_test is None else self.n_test
        test = [test[i] for i in sorted(rng.permutation(len(test))[:n_kept])]
        self._check("n_validation", self.n_validation, len(train))
        validation = [replace(problem, split="validation") for problem in train[: self.n_validation]]
        train = train[self.n_validation :]
        self._check("n_train", self.n_train or 1, len(train))
        self._check("n_test", n_kept, len(test))
        return [*train[: self.n_train], *validation, *test]

    def _read(self, sources: Sequence[ProblemSource], split: str) -> list[Problem]:
        problems = []
        for source in sources:
            found, n_unusable = read_source(source, self.max_unusable)
            if n_unusable:
                logger.warning("%s: %d rows without a question or an answer are left out", source.path, n_unusable)
            problems += [
                Problem(f"{source.name}-{raw.row}", source.name, split, raw.question, (raw.answer,), raw.metadata)
                for raw in found
            ]
        return problems

    @staticmethod
    def _without_repetitions(train: Sequence[Problem], test: Sequence[Problem]) -> list[Problem]:
        held_out = {normalize_question(problem.question) for problem in test}
        kept: dict[str, Problem] = {}
        n_held_out = 0
        for problem in train:
            question = normalize_question(problem.question)
            n_held_out += question in held_out
            if question not in held_out:
                kept.setdefault(question, problem)
        n_repeated = len(train) - n_held_out - len(kept)
        if n_held_out or n_repeated:
            logger.warning(
                "Training problems dropped: %d that stand in an evaluation source, %d repeated", n_held_out, n_repeated
            )
        return list(kept.values())

    @staticmethod
    def _check(name: str, wanted: int, there: int) -> None:
        if wanted > there:
            raise InputError(f"task.{name} asks for {wanted} problems, {there} are left: lower it, or add a source")


def normalize_question(question: str) -> str:
    """A question without spacing, dollars, braces and letter case: what two spellings of one problem have in common."""
    return _LATEX_SPACING.sub("", question).lower().rstrip(".?!")
