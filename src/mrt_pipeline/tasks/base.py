"""What a task is: problems, and the one door through which model text enters the project."""

from abc import abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass, field
from enum import Enum
from typing import ClassVar, Protocol

import numpy as np
from pydantic import Field

from mrt_pipeline.errors import InputError
from mrt_pipeline.policy.template import TemplateParams
from mrt_pipeline.registry import PositiveInt, Registered


class Grade(Enum):
    """Outcome of grading one answer. Only CORRECT earns reward; FAILED means that the grader itself gave up."""

    CORRECT = "correct"
    WRONG = "wrong"
    UNPARSED = "unparsed"
    FAILED = "failed"

    @property
    def reward(self) -> float:
        """The 0/1 outcome reward r(x, z) of the paper."""
        return float(self is Grade.CORRECT)


@dataclass(frozen=True)
class Problem:
    """One problem.

    problem_id: unique within the table.
    source: where it comes from (a generator's or a file's name).
    split: "train", "validation" or "test"; only "train" is ever trained on.
    question: the text shown to the model.
    answers: the accepted answers as surface strings. The exact prover sums their probabilities, so for it the list
        has to be complete: every string that the grader accepts.
    metadata: whatever else is known of the problem (difficulty, numbers, year, ...).
    """

    problem_id: str
    source: str
    split: str
    question: str
    answers: tuple[str, ...]
    metadata: dict = field(default_factory=dict)


@dataclass(frozen=True)
class SearchTrace:
    """A trace to warm-start on.

    thought, answer: text; between them the policy ends its thought. cut: the search was cut short, so that stopping
        there is not to be imitated.
    """

    thought: str
    answer: str
    cut: bool


class Task(Registered):
    """What is asked, and how answers are graded.

    A member defines `problems` and `grade`; the rest has defaults that do for text. A task of a pipeline also has the
    fields `n_train`, `n_validation` and `n_test`; see `SplitTask`.
    """

    kind: ClassVar[str] = "task"
    builtin: ClassVar[dict[str, str]] = {
        "countdown": "mrt_pipeline.tasks.countdown",
        "countdown_backtracking": "mrt_pipeline.tasks.countdown_backtracking",
        "countdown_parts": "mrt_pipeline.tasks.countdown_parts",
        "countdown_words": "mrt_pipeline.tasks.countdown_words",
        "math": "mrt_pipeline.tasks.math_problems",
        "reasoning_gym": "mrt_pipeline.tasks.reasoning_gym",
    }

    @abstractmethod
    def problems(self) -> list[Problem]:
        """All problems of all splits, in a fixed order."""

    @abstractmethod
    def grade(self, problem: Problem, answer: str) -> Grade:
        """Grade untrusted model text. Never raises and never runs it."""

    def grade_all(self, problems: Sequence[Problem], answers: Sequence[str]) -> list[Grade]:
        """The grade of each answer to its problem, as by `grade`; an empty text is UNPARSED.

        For tasks that are faster with many answers at once.
        """
        pairs = zip(problems, answers, strict=True)
        return [self.grade(problem, answer) if answer else Grade.UNPARSED for problem, answer in pairs]

    def read(self, text: str) -> str:
        """The answer in what a model wrote as its answer, as votes count it; empty if there is none.

        Unless a task knows better, the text itself.
        """
        return text.strip()

    def trace_metrics(self, traces: Sequence[str]) -> dict[str, float]:
        """What there is to measure about the text of whole traces, by name; empty if there is nothing."""
        return {}

    @property
    def longest_answer(self) -> int:
        """Tokens that the longest answer needs; 1 where nothing is known of it."""
        return 1


class SplitTask(Task):
    """A task whose splits are of a given size; None: all there are."""

    n_train: PositiveInt | None = Field(default=None, description="training problems; null: all that are left")
    n_validation: PositiveInt = Field(default=200, description="problems to watch training with and for every choice")
    n_test: PositiveInt | None = Field(default=None, description="held-out problems; null: all")
    seed: int = Field(default=0, description="of the split, and of problems that are generated")

    def _sized(self, splits: dict[str, list[Problem]], remedy: str) -> list[Problem]:
        """The first problems of each split, as many as wanted. Raises InputError with the remedy if there are fewer."""
        for split, found in splits.items():
            wanted = getattr(self, f"n_{split}") or 1
            if len(found) < wanted:
                left = f"{len(found)} are left: {remedy} or lower task.n_{split}"
                raise InputError(f"task.n_{split} asks for {wanted} problems, {left}")
        return [p for split in ("train", "validation", "test") for p in splits[split][: getattr(self, f"n_{split}")]]


class Searcher(Protocol):
    """What writes traces to warm-start on: a `SearchTask`, or a file of them (`trace_file.py`)."""

    def search_trace(self, problem: Problem, rng: np.random.Generator) -> SearchTrace:
        """A trace drawn with `rng`."""


class SearchTask(Task):
    """A task that can write imperfect searches, for a policy to be warm-started on."""

    @abstractmethod
    def search_trace(self, problem: Problem, rng: np.random.Generator) -> SearchTrace:
        """A trace drawn with `rng`."""


class ScratchTask(SearchTask):
    """A task whose policy can be made from scratch: it also has a vocabulary.

    markers: symbols around a thought, the opening one first; not among `symbols`.
    """

    markers: ClassVar[tuple[str, ...]]

    @property
    @abstractmethod
    def template(self) -> TemplateParams:
        """How thoughts and answers of this task are told apart."""

    @abstractmethod
    def symbols(self) -> list[str]:
        """Every whitespace-separated symbol that can occur in questions, thoughts and answers."""
