"""Countdown in parts: several independent small problems, all of which have to be right.

A part gives three numbers in their order and a target; the two operators are missing. By the rules of `countdown` six
pairs of operators are allowed in every part, and exactly one of them hits the target. So a part that nothing is known
of is guessed in one of six, and J rises with every part that is found: (1/6) ** (parts that are left).

A thought is a stream of attempts, each an episode that names its part:
`wait p2 2 * 14 =28 - 6 =22 high`. An attempt that succeeds states the part's answer, `=10 yes +-`. The answer is the
pair of each part in turn, `++ -* *-`.
"""

import re
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import product
from typing import Annotated, ClassVar, Literal, TypeVar

import numpy as np
from pydantic import Field

from mrt_pipeline.errors import InputError
from mrt_pipeline.policy.template import THINK_CLOSE, THINK_OPEN, SymbolThinkParams
from mrt_pipeline.registry import Fraction, PositiveInt
from mrt_pipeline.tasks.base import Grade, Problem, ScratchTask, SearchTrace, SplitTask
from mrt_pipeline.tasks.countdown import EPISODE_MARKER, OPERATIONS, Chain

PAIRS = tuple(first + second for first, second in product(OPERATIONS, repeat=2))
"""The answers that a part can have, a symbol each."""
_ALLOWED = 6  # of the nine pairs, in every part
_MAX_ANSWER_CHARS = 200
Thing = TypeVar("Thing")
_SHARES = {"test": 0.2, "validation": 0.1}  # of the number triples; the others are for training


@dataclass(frozen=True)
class Part:
    """Three numbers and a target. allowed: the pairs of operators whose results are small enough."""

    numbers: tuple[int, int, int]
    target: int
    allowed: tuple[str, ...]

    @property
    def answer(self) -> str:
        """The one pair that hits the target."""
        return next(pair for pair in self.allowed if self.chain(pair).value == self.target)

    def chain(self, pair: str) -> Chain:
        """The calculation with these operators."""
        return Chain(self.numbers, (pair[0], pair[1]))

    def __str__(self) -> str:
        return f"{' '.join(map(str, self.numbers))} make {self.target}"


class CountdownParts(ScratchTask, SplitTask):
    """The task; see the module's docstring. Splits never share the three numbers of a part.

    Warm-start traces search imperfectly: they repeat attempts, leave a part before it is found, come back to parts that
    are, stop early or go on at the end. Each habit is drawn once a trace, as in `Countdown`.
    """

    name: Literal["countdown_parts"] = "countdown_parts"
    parts: Annotated[int, Field(ge=1, le=9)] = Field(default=3, description="parts of a problem, all of them needed")
    max_number: PositiveInt = Field(default=15, description="numbers are drawn from 1..max_number")
    max_result: PositiveInt = Field(default=50, description="largest result allowed, of either step")
    n_train: PositiveInt = Field(default=3000, description="training problems")
    n_test: PositiveInt = Field(default=600, description="held-out problems of the evaluation")
    cut_fraction: Fraction = Field(default=0.25, description="share of warm-start traces cut at a random symbol")
    long_fraction: Fraction = Field(default=0.05, description="share that go on to max_attempts whatever they find")
    max_attempts: PositiveInt = Field(default=48, description="most attempts of a warm-start trace")

    markers: ClassVar[tuple[str, ...]] = (THINK_OPEN, THINK_CLOSE)

    def problems(self) -> list[Problem]:
        """Every problem draws its parts from those of its split."""
        rng = np.random.default_rng(self.seed)
        numbers = range(1, self.max_number + 1)
        triples = [(a, b, c) for a in numbers for b in numbers for c in numbers]
        rng.shuffle(triples)
        splits: dict[str, list[Problem]] = {}
        first = 0
        for split in ("test", "validation", "train"):
            last = first + round(_SHARES[split] * len(triples)) if split in _SHARES else len(triples)
            there = [part for triple in triples[first:last] for part in self._parts(triple)]
            splits[split] = self._drawn(there, split, rng)
            first = last
        return self._sized(splits, "raise task.max_number")

    def _parts(self, numbers: tuple[int, int, int]) -> list[Part]:
        """All parts with these numbers."""
        values = {pair: max(Chain(numbers, (pair[0], pair[1])).results()) for pair in PAIRS}
        allowed = tuple(pair for pair, most in values.items() if most <= self.max_result)
        if len(allowed) != _ALLOWED:
            return []
        hit = [Chain(numbers, (pair[0], pair[1])).value for pair in allowed]
        return [Part(numbers, value, allowed) for value in sorted(set(hit)) if hit.count(value) == 1]

    def _drawn(self, there: Sequence[Part], split: str, rng: np.random.Generator) -> list[Problem]:
        """As many different problems of these parts as are wanted, or as there are of a single part."""
        if len(there) < 2 * self.parts:
            raise InputError(f"there are {len(there)} parts for the {split} problems: raise task.max_number")
        if self.parts == 1:
            return [self._problem([there[i]], split) for i in rng.permutation(len(there))]
        found: dict[str, Problem] = {}
        wanted = getattr(self, f"n_{split}")
        for _ in range(20 * wanted):
            problem = self._problem([there[i] for i in rng.choice(len(there), self.parts, replace=False)], split)
            found.setdefault(problem.problem_id, problem)
            if len(found) == wanted:
                break
        return [*found.values()]

    def _problem(self, parts: Sequence[Part], split: str) -> Problem:
        spelled = ["-".join(map(str, (*part.numbers, part.target))) for part in parts]
        return Problem(
            problem_id=f"parts-{'_'.join(spelled)}",
            source=self.name,
            split=split,
            question=" ".join(f"p{i} {part}" for i, part in enumerate(parts, start=1)),
            answers=(" ".join(part.answer for part in parts),),
            metadata={"n_parts": len(parts)},
        )

    def grade(self, problem: Problem, answer: str) -> Grade:
        """Right is the one answer that all parts have; what is not a pair of operators for each part is unparsed."""
        pairs = answer.split(" ") if len(answer) <= _MAX_ANSWER_CHARS else []
        if len(pairs) != self.parts or not {*pairs} <= {*PAIRS}:
            return Grade.UNPARSED
        return Grade.CORRECT if answer == problem.answers[0] else Grade.WRONG

    @property
    def longest_answer(self) -> int:
        """A symbol a part."""
        return self.parts

    @property
    def template(self) -> SymbolThinkParams:
        """Open-ended thinking between think tags, each attempt an episode."""
        return SymbolThinkParams(
            close=THINK_CLOSE, stop_phrase=THINK_CLOSE, extensions=(EPISODE_MARKER,), markers=(EPISODE_MARKER,)
        )

    def symbols(self) -> list[str]:
        """The vocabulary: numbers, results, operators, pairs of them, the names of the parts, words."""
        return [
            *map(str, range(max(self.max_number, self.max_result) + 1)),
            *(f"={n}" for n in range(self.max_result + 1)),
            *(*OPERATIONS, *PAIRS, *(f"p{i}" for i in range(1, self.parts + 1))),
            *("make", EPISODE_MARKER, "low", "high", "yes"),
        ]

    def trace_metrics(self, traces: Sequence[str]) -> dict[str, float]:
        """`parts_found`: the share of a problem's parts that a thought finds, on average."""
        found = [len({*re.findall(r"\b(p\d)(?: [^p\s]\S*)* yes\b", trace)}) / self.parts for trace in traces]
        return {"parts_found": float(np.mean(found))} if found else {}

    def read_parts(self, problem: Problem) -> list[Part]:
        """The parts of a problem, from its question."""
        parts = []
        for text in re.split(r" ?p\d ", problem.question)[1:]:
            first, second, third, _, target = text.split()
            numbers = (int(first), int(second), int(third))
            parts += [part for part in self._parts(numbers) if part.target == int(target)]
        return parts

    def search_trace(self, problem: Problem, rng: np.random.Generator) -> SearchTrace:
        """An imperfect search for warm-starting.

        It answers a part with what was found, else with one of the pairs that were not tried, or with any if none is
        left.
        """
        parts = self.read_parts(problem)
        repeat = rng.choice([0.0, 0.3, 0.6], p=[0.3, 0.4, 0.3])
        leave = rng.choice([0.0, 0.2, 0.5], p=[0.4, 0.3, 0.3])
        come_back = rng.choice([0.0, 0.2], p=[0.5, 0.5])
        stop_early = rng.choice([0.0, 0.04, 0.12], p=[0.4, 0.3, 0.3])
        go_on = rng.choice([0.0, 0.5, 0.9], p=[0.4, 0.3, 0.3])
        most_attempts = min(self.parts * rng.choice([3, 6, 12], p=[0.2, 0.3, 0.5]), self.max_attempts)
        endless = rng.random() < self.long_fraction
        if endless:
            stop_early, go_on, most_attempts = 0.0, 1.0, self.max_attempts
        tried: list[list[str]] = [[] for _ in parts]
        found: set[int] = set()
        attempts: list[list[str]] = []
        now = int(rng.integers(len(parts)))
        while len(attempts) < most_attempts:
            if now in found or rng.random() < leave:
                now = self._next_part(len(parts), found, come_back, rng)
            part, own = parts[now], tried[now]
            untried = [pair for pair in part.allowed if pair not in own]
            again = own and (not untried or now in found or rng.random() < repeat)
            pair = _one_of(own if again else untried, rng)
            own.append(pair)
            chain = part.chain(pair)
            hit = chain.value == part.target
            verdict = f"yes {pair}" if hit else "low" if chain.value < part.target else "high"
            attempts.append(f"{EPISODE_MARKER} p{now + 1} {chain.written_out()} {verdict}".split())
            if hit:
                found.add(now)
            if rng.random() < (1 - go_on if len(found) == len(parts) else stop_early):
                break
        symbols = [symbol for attempt in attempts for symbol in attempt]
        cut = rng.random() < self.cut_fraction
        if cut:
            symbols = symbols[: rng.integers(len(symbols) + 1)]
        answer = " ".join(_known(i, part, symbols, rng) for i, part in enumerate(parts, start=1))
        return SearchTrace(" ".join(symbols), answer, bool(cut or endless))

    @staticmethod
    def _next_part(n: int, found: set[int], come_back: float, rng: np.random.Generator) -> int:
        """A part that is still to be found; now and then (`come_back`), or where none is left, one that is found."""
        left = [i for i in range(n) if i not in found]
        from_found = found and (not left or rng.random() < come_back)
        return _one_of(sorted(found) if from_found else left, rng)


def _one_of(things: Sequence[Thing], rng: np.random.Generator) -> Thing:
    return things[int(rng.integers(len(things)))]  # rng.choice takes twenty times as long


def _known(i: int, part: Part, symbols: Sequence[str], rng: np.random.Generator) -> str:
    """What a thought lets one answer to part i: the pair that hit, else one of those that did not fail."""
    failed = set()
    for attempt in " ".join(symbols).split(f"{EPISODE_MARKER} p{i} ")[1:]:
        _, first, _, _, second, _, _, verdict, *_ = *attempt.split(), *[""] * 8
        if verdict == "yes":
            return first + second
        if verdict in ("low", "high"):
            failed.add(first + second)
    return _one_of([pair for pair in part.allowed if pair not in failed] or part.allowed, rng)
