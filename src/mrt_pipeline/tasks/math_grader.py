"""Grading answers in another process with a hard deadline: by math-verify, or by a function of the user's.

math-verify's own time-out works in a main thread only, and cannot interrupt an extension module; a process can always
be killed (`math_worker.py`). What needs no mathematics never gets there: equal spellings, plain numbers, mere words.
"""

import atexit
import json
import logging
import select
import subprocess
import sys
from collections.abc import Sequence
from functools import cached_property, lru_cache
from pathlib import Path
from typing import Any

from pydantic import Field

from mrt_pipeline.errors import InputError
from mrt_pipeline.registry import PositiveFloat
from mrt_pipeline.tasks.answers import as_number, find_answer, normalize_answer
from mrt_pipeline.tasks.base import Grade, Problem, SplitTask

logger = logging.getLogger(__name__)
MAX_OWN_CHARS = 20_000  # a longer "answer" is none: the user's function is not asked about it
_START_DEADLINE = 60.0  # seconds until the child has imported sympy, or the user's module
_GRACE = 2.0  # seconds that the child has to keep the deadline
_GRADES = {True: Grade.CORRECT, False: Grade.WRONG, "unparsed": Grade.UNPARSED}
_MAX_KNOWN = 50_000  # verdicts remembered


class GuardedGrader:
    """What asks the child process. One of them, started when it is first needed, and again after it had to be killed.

    deadline: seconds for one answer. name: "<module>:<function>" of the user's; None: math-verify.
    """

    def __init__(self, deadline: float = 5.0, name: str | None = None):
        self.deadline, self.name = deadline, name
        self._child: subprocess.Popen[bytes] | None = None
        self._known = lru_cache(_MAX_KNOWN)(self._judged)
        self._warned = False
        atexit.register(self.close)

    def __reduce__(self) -> tuple:
        return type(self), (self.deadline, self.name)  # a copy has a child of its own

    def ask(self, *question: Any) -> Grade:
        """The grade that the child gives, which is asked the same question once. Never raises."""
        return self._known(json.dumps([self.deadline, *question], default=str))

    def _judged(self, request: str) -> Grade:
        try:
            self._start()
            verdict = self._exchange(f"{request}\n", self.deadline + _GRACE)
        except (OSError, ValueError) as error:
            self.close()
            verdict = {"failed": f"judging it {error}"}
        if not isinstance(verdict, dict):
            return _GRADES[verdict]
        if self.name is not None and not self._warned:
            self._warned = True
            logger.warning(
                "task.grader=%s failed on an answer, which earns no reward: %s. Further failures are not shown",
                self.name,
                verdict["failed"],
            )
        return Grade.FAILED

    def _start(self) -> None:
        """Start the child if there is none. Raises InputError if it refuses what it is to grade with."""
        if self._child is None:
            self._child = subprocess.Popen(
                [sys.executable, "-m", "mrt_pipeline.tasks.math_worker", *([self.name] if self.name else [])],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=subprocess.DEVNULL,
            )
            started = self._exchange("", _START_DEADLINE)
            if isinstance(started, dict):
                raise InputError(started["refused"])

    def _exchange(self, request: str, deadline: float) -> Any:
        """Write a request, if any, and read the reply: the child writes a line at once or nothing."""
        child = self._child
        assert child and child.stdin and child.stdout
        child.stdin.write(request.encode())
        child.stdin.flush()
        if not select.select([child.stdout], [], [], deadline)[0]:
            raise TimeoutError(f"takes more than {deadline:g} s")
        line = child.stdout.readline()
        if not line:
            raise BrokenPipeError("ended the process")
        return json.loads(line)

    def close(self) -> None:
        """Kill the child, if there is one. The next question starts another."""
        if self._child is not None:
            self._child.kill()
            self._child.communicate()
            self._child = None


class MathGrader(GuardedGrader):
    """Compares an answer with gold answers."""

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
        return self.ask(list(golds), answer)


class OwnGrader(GuardedGrader):
    """Asks a function `grade(answer: str, problem: dict) -> bool` of the user's.

    Its module is imported in the child process only, from the working directory or where it is installed. `answer` is
    the text that the model wrote as its answer; `problem` has question, answers and metadata.
    """

    def check(self) -> None:
        """Raise InputError if there is no such function, or its module cannot be imported."""
        try:
            self._start()
        except (InputError, OSError) as error:
            self.close()
            reason = error if isinstance(error, InputError) else f"importing its module {error}"
            raise InputError(
                f"task.grader={self.name} cannot be used: {reason}. Give task.grader=<module>:<function>, a function "
                f"grade(answer, problem) -> bool of a module in the working directory ({Path.cwd()}) or of an "
                "installed package; or task.grader=null to compare answers as mathematics"
            ) from error

    def grade(self, problem: Problem, answer: str) -> Grade:
        """CORRECT if the function says True; FAILED unless it says False. Never raises."""
        if not answer.strip() or len(answer) > MAX_OWN_CHARS:
            return Grade.UNPARSED
        shown = {"question": problem.question, "answers": problem.answers, "metadata": problem.metadata}
        return self.ask(shown, answer)


class MathAnswers(SplitTask):
    """A task with mathematical answers, up to its problems."""

    grading_seconds: PositiveFloat = Field(default=5.0, description="deadline for comparing one answer")

    @cached_property
    def comparison(self) -> MathGrader:
        """What compares answers."""
        return MathGrader(self.grading_seconds)

    def read(self, text: str) -> str:
        """The answer that the text ends with, in its normalised spelling."""
        return normalize_answer(find_answer(text) or "")

    def grade(self, problem: Problem, answer: str) -> Grade:
        """The answer that the text ends with against the gold answers."""
        found = find_answer(answer)
        return Grade.UNPARSED if found is None else self.comparison.grade(problem.answers, found)
