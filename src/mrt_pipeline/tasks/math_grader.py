"""Grading answers in other processes with a hard deadline: by math-verify, or by a function of the user's.

math-verify's own time-out works in a main thread only, and cannot interrupt an extension module; a process can always
be killed (`math_worker.py`). What needs no mathematics never gets there: equal spellings, plain numbers, mere words.
"""

import atexit
import json
import logging
import os
import select
import subprocess
import sys
from collections.abc import Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import cached_property
from itertools import islice
from pathlib import Path
from queue import LifoQueue
from typing import Any

from pydantic import Field

from mrt_pipeline.bars import bar
from mrt_pipeline.errors import InputError
from mrt_pipeline.registry import PositiveFloat
from mrt_pipeline.tasks.answers import as_number, find_answer, normalize_answer
from mrt_pipeline.tasks.base import Grade, Problem, SplitTask

logger = logging.getLogger(__name__)
MAX_OWN_CHARS = 20_000  # a longer "answer" is none: the user's function is not asked about it
_START_DEADLINE = 60.0  # seconds until a child has imported sympy, or the user's module
_GRACE = 2.0  # seconds that a child has to keep the deadline
_GRADES = {True: Grade.CORRECT, False: Grade.WRONG, "unparsed": Grade.UNPARSED}
_MAX_KNOWN = 50_000  # verdicts remembered


class _Child:
    """A child process that judges one answer after the other; started when it is needed, again after it was killed."""

    def __init__(self, name: str | None):
        self.name = name
        self.process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        """Start the process if there is none. Raises InputError if it refuses what it is to grade with."""
        if self.process is None:
            self.process = subprocess.Popen(
                [sys.executable, "-m", "mrt_pipeline.tasks.math_worker", *([self.name] if self.name else [])],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=subprocess.DEVNULL,
                env={"PYTHONHASHSEED": "0", **os.environ},  # sets have the same order whichever child is asked
            )
            started = self._exchange("", _START_DEADLINE)
            if isinstance(started, dict):
                raise InputError(started["refused"])

    def judge(self, request: str, deadline: float) -> Any:
        """The verdict on an answer. Never raises."""
        try:
            self.start()
            return self._exchange(f"{request}\n", deadline)
        except (OSError, ValueError) as error:
            self.close()
            return {"failed": f"judging it {error}"}

    def _exchange(self, request: str, deadline: float) -> Any:
        """Write a request, if any, and read the reply: the child writes a line at once or nothing."""
        process = self.process
        assert process and process.stdin and process.stdout
        process.stdin.write(request.encode())
        process.stdin.flush()
        if not select.select([process.stdout], [], [], deadline)[0]:
            raise TimeoutError(f"takes more than {deadline:g} s")
        line = process.stdout.readline()
        if not line:
            raise BrokenPipeError("ended the process")
        return json.loads(line)

    def close(self) -> None:
        """Kill the process, if there is one."""
        if self.process is not None:
            self.process.kill()
            self.process.communicate()
            self.process = None


class GuardedGrader:
    """What asks child processes: as many as there are cores, or new questions if these are fewer.

    deadline: seconds for one answer, from when a child takes it. name: "<module>:<function>" of the user's; None:
        math-verify.
    """

    def __init__(self, deadline: float = 5.0, name: str | None = None):
        self.deadline, self.name = deadline, name
        self.children = [_Child(name) for _ in range(usable_cores())]
        self._idle: LifoQueue[_Child] = LifoQueue()  # the one that worked last is taken before another is started
        for child in reversed(self.children):
            self._idle.put(child)
        self._known: dict[str, Grade] = {}
        self._warned = False
        atexit.register(self.close)

    def __reduce__(self) -> tuple:
        return type(self), (self.deadline, self.name)  # a copy has children of its own

    def grade(self, subject: Any, answer: str) -> Grade:
        """The grade of one answer; see `grade_all`."""
        return self.grade_all([subject], [answer])[0]

    def grade_all(self, subjects: Sequence[Any], answers: Sequence[str]) -> list[Grade]:
        """The grade of each answer by its own subject (`question`). Never raises for what the text is."""
        questions = [self.question(subject, answer) for subject, answer in zip(subjects, answers, strict=True)]
        asked = iter(self.ask(question for question in questions if not isinstance(question, Grade)))
        return [question if isinstance(question, Grade) else next(asked) for question in questions]

    def question(self, subject: Any, answer: str) -> Grade | list:
        """What a child is to be asked about an answer; or its grade, if that is clear without."""
        raise NotImplementedError

    def ask(self, questions: Iterable[list]) -> list[Grade]:
        """The grades that children give, in the order of the questions; each is asked once. Never raises."""
        requests = [json.dumps([self.deadline, *question], default=str) for question in questions]
        new = [request for request in dict.fromkeys(requests) if request not in self._known]
        if new:
            with ThreadPoolExecutor(min(len(self.children), len(new))) as pool:
                verdicts = bar(pool.map(self._judged, new), total=len(new), desc="grading", unit="answer")
                self._known.update((request, self._read(verdict)) for request, verdict in zip(new, verdicts))
        grades = [self._known[request] for request in requests]
        for request in list(islice(self._known, max(0, len(self._known) - _MAX_KNOWN))):
            del self._known[request]  # the oldest
        return grades

    def _judged(self, request: str) -> Any:
        child = self._idle.get()
        try:
            return child.judge(request, self.deadline + _GRACE)
        finally:
            self._idle.put(child)

    def _read(self, verdict: Any) -> Grade:
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

    def close(self) -> None:
        """Kill the children. The next question starts one again."""
        for child in self.children:
            child.close()


def usable_cores() -> int:
    """Cores that this process may run on."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


class MathGrader(GuardedGrader):
    """Compares answers with gold answers, the subject: CORRECT if it equals one of them."""

    def question(self, subject: Sequence[str], answer: str) -> Grade | list:
        """See `GuardedGrader.question`."""
        spelling = normalize_answer(answer)
        if not spelling:
            return Grade.UNPARSED
        if spelling in {normalize_answer(gold) for gold in subject}:
            return Grade.CORRECT
        number, gold_numbers = as_number(answer), [as_number(gold) for gold in subject]
        if None not in gold_numbers:
            if number is not None:
                return Grade.CORRECT if number in gold_numbers else Grade.WRONG
            if not any(char.isdigit() for char in spelling):
                return Grade.WRONG  # no number is written without a digit
        return [list(subject), answer]


class OwnGrader(GuardedGrader):
    """Asks a function `grade(answer: str, problem: dict) -> bool` of the user's; FAILED if it says anything else.

    Its module is imported in the child processes only, from the working directory or where it is installed; so it may
    be there once for each core. Each answer is judged in a fork of its own: nothing is carried from one to the next.
    `answer` is the text that the model wrote as its answer; `problem` has question, answers and metadata.
    """

    def check(self) -> None:
        """Raise InputError if there is no such function, or its module cannot be imported."""
        child = self.children[0]
        try:
            child.start()
        except (InputError, OSError) as error:
            child.close()
            reason = error if isinstance(error, InputError) else f"importing its module {error}"
            raise InputError(
                f"task.grader={self.name} cannot be used: {reason}. Give task.grader=<module>:<function>, a function "
                f"grade(answer, problem) -> bool of a module in the working directory ({Path.cwd()}) or of an "
                "installed package; or task.grader=null to compare answers as mathematics"
            ) from error

    def question(self, subject: Problem, answer: str) -> Grade | list:
        """See `GuardedGrader.question`."""
        if not answer.strip() or len(answer) > MAX_OWN_CHARS:
            return Grade.UNPARSED
        return [{"question": subject.question, "answers": subject.answers, "metadata": subject.metadata}, answer]


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
        return self._graded_together([problem], [answer])[0]

    def grade_all(self, problems: Sequence[Problem], answers: Sequence[str]) -> list[Grade]:
        """See `Task.grade_all`. A class made from this one that has a `grade` of its own is asked one by one."""
        together = type(self).grade is MathAnswers.grade
        return self._graded_together(problems, answers) if together else super().grade_all(problems, answers)

    def _graded_together(self, problems: Sequence[Problem], answers: Sequence[str]) -> list[Grade]:
        found = [find_answer(answer) or "" for answer in answers]
        return self.comparison.grade_all([problem.answers for problem in problems], found)
