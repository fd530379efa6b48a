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
from collections.abc import Hashable, Sequence
from functools import cached_property
from pathlib import Path
from typing import Any

from pydantic import Field

from mrt_pipeline.errors import InputError
from mrt_pipeline.registry import PositiveFloat
from mrt_pipeline.tasks.answers import as_number, find_answer, normalize_answer
from mrt_pipeline.tasks.base import Grade, Problem, Task

logger = logging.getLogger(__name__)
MAX_OWN_CHARS = 20_000  # a longer "answer" is none: the user's function is not asked about it
_START_DEADLINE = 60.0  # seconds until the child has imported sympy, or the user's module
_GRACE = 2.0  # seconds that the child has to keep the deadline
_GRADES = {True: Grade.CORRECT, False: Grade.WRONG, "unparsed": Grade.UNPARSED}
_MAX_KNOWN = 50_000  # verdicts remembered


class GuardedGrader:
    """What asks the child process. One of them, started when it is first needed, and again after it had to be killed.

    deadline: seconds for one answer. arguments: of `math_worker.py`.
    """

    def __init__(self, deadline: float, *arguments: str):
        self.deadline, self.arguments = deadline, arguments
        self._child: subprocess.Popen | None = None
        self._known: dict[Hashable, Grade] = {}
        atexit.register(self.close)

    def __getstate__(self) -> dict[str, Any]:
        return self.__dict__ | {"_child": None, "_known": {}}  # a copy has a child of its own

    def _remembered(self, key: Hashable, *question: Any) -> Grade:
        """The grade that the child gives; asked once for each key."""
        if key not in self._known:
            if len(self._known) >= _MAX_KNOWN:
                self._known.clear()
            self._known[key] = self._ask(*question)
        return self._known[key]

    def _ask(self, *question: Any) -> Grade:
        try:
            child = self._running()
            child.stdin.write(json.dumps([self.deadline, *question], default=str).encode() + b"\n")
            child.stdin.flush()
            verdict = self._reply(child, self.deadline + _GRACE)
        except (OSError, TimeoutError, ValueError) as error:
            self.close()
            verdict = {"failed": f"{type(error).__name__}: {error}"}
        if isinstance(verdict, dict):
            self._report(verdict["failed"])
            return Grade.FAILED
        return _GRADES[verdict]

    def _report(self, reason: str) -> None:
        """Called with the reason whenever grading failed."""

    def _running(self) -> subprocess.Popen:
        """The child. Raises InputError if it refuses what it is to grade with."""
        if self._child is None:
            self._child = subprocess.Popen(
                [sys.executable, "-m", "mrt_pipeline.tasks.math_worker", *self.arguments],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=subprocess.DEVNULL,
            )
            started = self._reply(self._child, _START_DEADLINE)
            if isinstance(started, dict):
                raise InputError(started["refused"])
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
        """Kill the child, if there is one. The next question starts another."""
        if self._child is not None:
            self._child.kill()
            self._child.communicate()
            self._child = None


class MathGrader(GuardedGrader):
    """Compares an answer with gold answers. deadline: seconds for one comparison."""

    def __init__(self, deadline: float = 5.0):
        super().__init__(deadline)

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
        return self._remembered((tuple(golds), spelling), list(golds), answer)


class OwnGrader(GuardedGrader):
    """Asks a function `grade(answer: str, problem: dict) -> bool` of the user's.

    Its module is imported in the child process only, from the working directory or where it is installed. `answer` is
    the text that the model wrote as its answer; `problem` has question, answers and metadata. name:
    "<module>:<function>". deadline: seconds for one answer.
    """

    def __init__(self, name: str, deadline: float = 5.0):
        super().__init__(deadline, name)
        self.name = name
        self._warned = False

    def check(self) -> None:
        """Raise InputError if there is no such function, or its module cannot be imported."""
        try:
            self._running()
            return
        except InputError as error:
            reason = str(error)
        except TimeoutError:
            reason = f"importing its module takes more than {_START_DEADLINE:g} s"
        except (OSError, ValueError):
            reason = "importing its module ended the process"
        self.close()
        raise InputError(
            f"task.grader={self.name} cannot be used: {reason}. Give task.grader=<module>:<function>, a function "
            f"grade(answer, problem) -> bool of a module in the working directory ({Path.cwd()}) or of an installed "
            "package; or task.grader=null to compare answers as mathematics"
        )

    def grade(self, problem: Problem, answer: str) -> Grade:
        """CORRECT if the function says True; FAILED unless it says False. Never raises."""
        if not answer.strip() or len(answer) > MAX_OWN_CHARS:
            return Grade.UNPARSED
        shown = {"question": problem.question, "answers": list(problem.answers), "metadata": problem.metadata}
        return self._remembered((problem.problem_id, problem.question, problem.answers, answer), shown, answer)

    def _report(self, reason: str) -> None:
        if not self._warned:
            logger.warning(
                "task.grader=%s failed on an answer, which earns no reward: %s. Further failures are not shown",
                self.name,
                reason,
            )
            self._warned = True


class MathAnswers(Task):
    """A `Task` with mathematical answers, up to its problems."""

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
