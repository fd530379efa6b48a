"""Grading mathematical answers by math-verify, in another process with a hard deadline.

math-verify's own time-out works in a main thread only, and cannot interrupt an extension module; a process can always
be killed (`math_worker.py`). What needs no mathematics never gets there: equal spellings, plain numbers, mere words.
"""

import atexit
import json
import select
import subprocess
import sys
from collections.abc import Sequence

from mrt_pipeline.tasks.answers import as_number, find_answer, normalize_answer
from mrt_pipeline.tasks.base import Grade, Problem

_START_DEADLINE = 60.0  # seconds until the child has imported sympy
_GRACE = 2.0  # seconds that the child has to keep the deadline
_GRADES = {True: Grade.CORRECT, False: Grade.WRONG, "unparsed": Grade.UNPARSED, "failed": Grade.FAILED}
_MAX_KNOWN = 50_000  # comparisons remembered


class MathGrader:
    """Compares an answer with gold answers. One child process, started when it is first needed.

    deadline: seconds for one comparison.
    """

    def __init__(self, deadline: float = 5.0):
        self.deadline = deadline
        self._child: subprocess.Popen | None = None
        self._known: dict[tuple[tuple[str, ...], str], Grade] = {}
        atexit.register(self.close)

    def grade(self, golds: Sequence[str], answer: str) -> Grade:
        """CORRECT if the answer equals one of the gold answers; never raises for what the text is."""
        spelling = normalize_answer(answer)
        if not spelling:
            return Grade.UNPARSED
        if spelling in {normalize_answer(gold) for gold in golds}:
            return Grade.CORRECT
        number, gold_numbers = as_number(answer), [as_number(gold) for gold in golds]
        if None not in gold_numbers:
            if number is not None:
                return Grade.CORRECT if number in gold_numbers else Grade.WRONG
            if not any(char.isdigit() for char in spelling):
                return Grade.WRONG  # no number is written without a digit
        key = (tuple(golds), spelling)
        if key not in self._known:
            if len(self._known) >= _MAX_KNOWN:
                self._known.clear()
            self._known[key] = self._ask(golds, answer)
        return self._known[key]

    def _ask(self, golds: Sequence[str], answer: str) -> Grade:
        try:
            child = self._running()
            child.stdin.write(json.dumps([self.deadline, list(golds), answer]).encode() + b"\n")
            child.stdin.flush()
            verdict = self._reply(child, self.deadline + _GRACE)
        except (OSError, TimeoutError, ValueError):
            self.close()
            verdict = "failed"
        return _GRADES[verdict]

    def _running(self) -> subprocess.Popen:
        if self._child is None:
            self._child = subprocess.Popen(
                [sys.executable, "-m", "mrt_pipeline.tasks.math_worker"],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=subprocess.DEVNULL,
            )
            self._reply(self._child, _START_DEADLINE)
        return self._child

    @staticmethod
    def _reply(child: subprocess.Popen, deadline: float):
        """One line of the child, which writes a line at once or nothing."""
        if not select.select([child.stdout], [], [], deadline)[0]:
            raise TimeoutError
        line = child.stdout.readline()
        if not line:
            raise BrokenPipeError  # the child died
        return json.loads(line)

    def close(self) -> None:
        """Kill the child, if there is one. The next comparison starts another."""
        if self._child is not None:
            self._child.kill()
            self._child.communicate()
            self._child = None


class MathAnswers:
    """The part of a `Task` that reads and grades mathematical answers. grading_seconds: deadline of one comparison."""

    def __init__(self, grading_seconds: float):
        self.grader = MathGrader(grading_seconds)

    def read(self, text: str) -> str:
        """The answer that the text ends with, in its normalised spelling."""
        return normalize_answer(find_answer(text) or "")

    def grade(self, problem: Problem, answer: str) -> Grade:
        """The answer that the text ends with against the gold answers."""
        found = find_answer(answer)
        return Grade.UNPARSED if found is None else self.grader.grade(problem.answers, found)

    def trace_metrics(self, traces: Sequence[str]) -> dict[str, float]:
        """None."""
        return {}
