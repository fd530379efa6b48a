"""What a task is: problems, and the one door through which model text enters the project."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from enum import Enum
from typing import Protocol

from transformers import PreTrainedTokenizerBase

from mrt_pipeline.policy.template import Template


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

    thought, answer: text. cut: the search was cut short, so that stopping there is not to be imitated.
    """

    thought: str
    answer: str
    cut: bool


class Task(Protocol):
    """What the pipeline needs to know about a task."""

    name: str

    def problems(self) -> list[Problem]:
        """All problems of all splits, in a fixed order."""
        ...

    def read(self, text: str) -> str:
        """The answer in what a model wrote as its answer, as votes count it; empty if there is none."""
        ...

    def grade(self, problem: Problem, answer: str) -> Grade:
        """Grade untrusted model text. Never raises and never runs it."""
        ...

    def trace_metrics(self, traces: Sequence[str]) -> dict[str, float]:
        """What there is to measure about the text of whole traces, by name; empty if there is nothing."""
        ...


class ScratchTask(Task, Protocol):
    """A task whose policy is made from scratch: it also has a vocabulary and imperfect traces to warm-start on.

    markers: symbols around a thought, the opening one first; not among `symbols`.
    """

    markers: tuple[str, ...]

    def template(self, tokenizer: PreTrainedTokenizerBase) -> Template:
        """How thoughts and answers of this task are told apart in tokens."""
        ...

    def symbols(self) -> list[str]:
        """Every whitespace-separated symbol that can occur in questions, thoughts and answers."""
        ...

    def search_trace(self, problem: Problem, rng) -> SearchTrace:
        """A trace drawn with the numpy Generator `rng`."""
        ...
