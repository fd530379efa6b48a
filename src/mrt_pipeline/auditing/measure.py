"""From traces to the tables that evaluation works with: pieces of text, steps, J at their ends.

What is counted are pieces: tokens of a tokenizer, or words where none is given. A thought is cut into its paragraphs;
J is taken at the end of each (`stated.py`), and at the end of the thought that of the final answer. Episodes by the
paper's rule (`mrt/episodes.py`) are those of its paragraphs that open a new attempt.
"""

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd

from mrt_pipeline.auditing.stated import answers_so_far
from mrt_pipeline.auditing.trace import Trace
from mrt_pipeline.errors import InputError
from mrt_pipeline.mrt.episodes import paragraph_boundaries, paragraph_ends
from mrt_pipeline.policy.text_template import MARKERS
from mrt_pipeline.tasks.answers import find_answer, normalize_answer
from mrt_pipeline.tasks.base import Grade, Problem
from mrt_pipeline.tasks.math_grader import MathGrader
from mrt_pipeline.tasks.math_problems import normalize_question

_WORD = re.compile(r"\s*\S+")
_MOST_STEPS = 400  # of a thought; more paragraphs are merged evenly
Cut = Callable[[str], list[str]]
"""A text into pieces that make it up."""
Grading = Callable[[Sequence[Problem], Sequence[str]], list[Grade]]
"""The grade of each answer to its problem."""


@dataclass(frozen=True)
class Measured:
    """A trace and what was measured of it.

    problem: number of its question among the different ones. steps: pieces at the ends of its
    paragraphs, (k + 1,), 0 first and the whole thought last. ends: the same in characters. answers: stated up to there,
    the last one the final answer; empty for none. success: J there, NaN without gold answers. episodes: pieces where
    the paper's episodes end. repeated: share of its paragraphs that stood in it before.
    """

    trace: Trace
    problem: int
    steps: np.ndarray
    ends: np.ndarray
    answers: list[str]
    success: np.ndarray
    episodes: np.ndarray
    repeated: float

    @property
    def n_pieces(self) -> int:
        """Of the thought."""
        return int(self.steps[-1])

    @property
    def problem_id(self) -> str:
        """The number as tables have it; sorts like the number."""
        return f"{self.problem:05d}"


def words(text: str) -> list[str]:
    """The words of a text, each with the blanks before it; joined they are the text."""
    pieces = _WORD.findall(text)
    rest = text[sum(map(len, pieces)) :]
    if rest:
        pieces = [*pieces[:-1], pieces[-1] + rest] if pieces else [rest]
    return pieces


def tokens_of(path: str) -> Cut:
    """The pieces of the tokenizer in a folder or on the hub."""
    from transformers import AutoTokenizer

    try:
        tokenizer = AutoTokenizer.from_pretrained(path)
        if not tokenizer.is_fast:
            raise ValueError("it has no fast form, which says where a token stands")
    except (OSError, ValueError) as error:
        raise InputError(f"audit.tokenizer={path} cannot be loaded: {str(error).splitlines()[0]}") from error

    def cut(text: str) -> list[str]:
        found = tokenizer(text, add_special_tokens=False, return_offsets_mapping=True)["offset_mapping"]
        starts = np.unique([0, *(start for start, _ in found)]).tolist() if text else []
        return [text[a:b] for a, b in zip(starts, [*starts[1:], len(text)])]

    return cut


def as_mathematics(deadline: float = 5.0) -> Grading:
    """Compares with the gold answers by math-verify; deadline: seconds for one answer."""
    grader = MathGrader(deadline)
    return lambda problems, answers: grader.grade_all([problem.answers for problem in problems], answers)


def measure(traces: Sequence[Trace], grade: Grading, cut: Cut = words) -> list[Measured]:
    """Each trace with its steps, answers and J."""
    numbers: dict[str, int] = {}
    problems = [numbers.setdefault(normalize_question(trace.question), len(numbers)) for trace in traces]
    parts = [_steps(trace, cut) for trace in traces]
    success = _graded(traces, problems, [part[2] for part in parts], grade)
    return [
        Measured(trace, problem, steps, ends, answers, j, episodes, repeated)
        for trace, problem, (steps, ends, answers, episodes, repeated), j in zip(
            traces, problems, parts, success, strict=True
        )
    ]


def _steps(trace: Trace, cut: Cut) -> tuple[np.ndarray, np.ndarray, list[str], np.ndarray, float]:
    pieces = cut(trace.thought)
    lengths = np.cumsum([0, *map(len, pieces)])
    steps = np.unique([0, *paragraph_ends(pieces), len(pieces)])
    if len(steps) > _MOST_STEPS + 1:
        steps = steps[np.unique(np.linspace(0, len(steps) - 1, _MOST_STEPS + 1).round().astype(int))]
    ends = lengths[steps]
    answers = answers_so_far(trace.thought, ends.tolist())
    final = find_answer(trace.answer) if trace.answer.strip() else None
    if trace.finished:
        answers[-1] = final or answers[-1] or (find_answer(trace.thought) or "" if not trace.answer.strip() else "")
    paragraphs = [text for text in (part.strip() for part in trace.thought.split("\n\n")) if text]
    repeated = 1 - len({*paragraphs}) / len(paragraphs) if paragraphs else 0.0
    return steps, ends, answers, paragraph_boundaries(pieces, MARKERS), repeated


def _graded(
    traces: Sequence[Trace], problems: Sequence[int], answers: Sequence[list[str]], grade: Grading
) -> list[np.ndarray]:
    """J of each trace's answers; each different one of a problem is graded once."""
    asked: dict[tuple[int, tuple[str, ...], str], Problem] = {}
    for trace, number, own in zip(traces, problems, answers, strict=True):
        for answer in filter(None, own if trace.golds else ()):
            problem = Problem(f"trace-{number}", "audit", "test", trace.question, trace.golds)
            asked.setdefault((number, trace.golds, answer), problem)
    grades = grade([*asked.values()], [answer for _, _, answer in asked]) if asked else []
    reward = {key: each.reward for key, each in zip(asked, grades, strict=True)}
    return [
        np.array([reward.get((number, trace.golds, answer), 0.0) if trace.golds else np.nan for answer in own])
        for trace, number, own in zip(traces, problems, answers, strict=True)
    ]


def episodes_table(measured: Sequence[Measured]) -> pd.DataFrame:
    """The steps of traces with gold answers as an `episodes` table (docs/tables.md), policy `base`."""
    return pd.concat(
        [
            pd.DataFrame({**ids, "n_tokens": item.steps, "success": item.success, "forced": False, "stopped": False})
            for ids, item in _known(measured)
        ],
        ignore_index=True,
    )


def samples_table(measured: Sequence[Measured]) -> pd.DataFrame:
    """Those traces as a table of samples: the final answer, its reward, and what was spent."""
    return pd.DataFrame(
        [
            {
                **ids,
                "answer_text": normalize_answer(item.answers[-1]),
                "grade": Grade.CORRECT.value if item.success[-1] == 1 else Grade.WRONG.value,
                "reward": float(item.success[-1]),
                "tokens": item.n_pieces,
            }
            for ids, item in _known(measured)
        ]
    )


def _known(measured: Sequence[Measured]):
    counts: dict[int, int] = {}
    for item in measured:
        if item.trace.golds:
            rollout = counts.get(item.problem, 0)
            counts[item.problem] = rollout + 1
            yield {"policy": "base", "problem_id": item.problem_id, "rollout_id": rollout}, item
