"""Countdown: reach a target from given numbers, as in 'Stream of Search' (arXiv 2404.03683) and TinyZero.

The variant played here:

* An answer is a *chain*: two numbers are combined, and the result with each further number in turn, so for three
  numbers `(7 - 3) * 12`. Every number is used exactly once.
* Operations are `+`, `*` and `-`. As Countdown knows no negative numbers, `-` is the larger minus the smaller,
  whichever is written first.
* No intermediate result may exceed `max_result`, which keeps every number one symbol.

A thought is a stream of attempts, each an episode of nine symbols for three numbers:
`wait 7 - 3 =4 * 12 =48 high`. The verdict (`low`, `high`, `yes`) compares the chain's value with the target. An attempt
that succeeds goes on to state the answer, `... =48 yes (7 - 3) * 12`, as reasoning models write "so the answer is ...":
what was found can then be copied later, so that a small model can recall it.
"""

import math
import operator
import re
from abc import abstractmethod
from collections.abc import Callable
from dataclasses import dataclass
from itertools import combinations_with_replacement, permutations, product
from typing import Annotated, ClassVar, Literal, Self

import numpy as np
from pydantic import Field, model_validator

from mrt_pipeline.policy.template import THINK_CLOSE, THINK_OPEN, SymbolThinkParams
from mrt_pipeline.registry import Fraction, PositiveInt
from mrt_pipeline.tasks.base import Grade, Problem, ScratchTask, SearchTask, SearchTrace, SplitTask

EPISODE_MARKER = "wait"
OPERATIONS: dict[str, Callable[[int, int], int]] = {
    "+": operator.add,
    "*": operator.mul,
    "-": lambda left, right: abs(left - right),
}
_NUMBER = "(?:0|[1-9][0-9]*)"  # as a pattern: in one spelling only
_MAX_ANSWER_CHARS = 200


@dataclass(frozen=True)
class Chain:
    """A chain of operations, e.g. numbers (7, 3, 12) and operators ("-", "*") for `(7 - 3) * 12`."""

    numbers: tuple[int, ...]
    operators: tuple[str, ...]

    def results(self) -> list[int]:
        """The intermediate results, the chain's value last."""
        results = [self.numbers[0]]
        for symbol, number in zip(self.operators, self.numbers[1:], strict=True):
            results.append(OPERATIONS[symbol](results[-1], number))
        return results[1:]

    @property
    def value(self) -> int:
        """What it comes to."""
        return self.results()[-1]

    def answer(self) -> str:
        """The chain as an answer string."""
        text = str(self.numbers[0])
        for i, (symbol, number) in enumerate(zip(self.operators, self.numbers[1:], strict=True)):
            text = f"{text} {symbol} {number}" if i == 0 else f"({text}) {symbol} {number}"
        return text

    def written_out(self) -> str:
        """The chain with its intermediate results, `7 - 3 =4 * 12 =48`."""
        steps = zip(self.operators, self.numbers[1:], self.results(), strict=True)
        return " ".join([str(self.numbers[0]), *(f"{symbol} {number} ={result}" for symbol, number, result in steps)])

    def attempt(self, target: int) -> str:
        """The chain as an episode of the thought."""
        verdict = f"yes {self.answer()}" if self.value == target else "low" if self.value < target else "high"
        return f"{EPISODE_MARKER} {self.written_out()} {verdict}"


class CountdownRules(SearchTask, SplitTask):
    """What the variants of the task have in common: rules and problems.

    Splits never share a number multiset, so nothing can be memorised. Problems with many solutions are left out, since
    guessing would solve them.
    """

    n_numbers: Annotated[int, Field(ge=2, le=5)] = Field(default=3, description="numbers given in a problem")
    max_number: PositiveInt = Field(default=12, description="numbers are drawn from 1..max_number")
    target_min: PositiveInt = Field(default=10, description="smallest target")
    target_max: PositiveInt = Field(default=99, description="largest target")
    max_result: PositiveInt = Field(default=99, description="largest intermediate result allowed")
    max_solutions: PositiveInt = Field(default=4, description="problems with more solving chains are left out")
    n_test: PositiveInt = Field(default=600, description="held-out problems of the evaluation")

    @model_validator(mode="after")
    def _targets(self) -> Self:
        if self.target_min > self.target_max:
            raise ValueError(f"target_min {self.target_min} exceeds target_max {self.target_max}")
        return self

    def chains(self, numbers: tuple[int, ...]) -> list[Chain]:
        """Every legal chain over `numbers`, one per distinct calculation: the larger of the first two stands first."""
        orders = [order for order in sorted(set(permutations(numbers))) if order[0] >= order[1]]
        found = [Chain(order, signs) for order in orders for signs in product("+-*", repeat=len(numbers) - 1)]
        return [chain for chain in found if max(chain.results()) <= self.max_result]

    def problems(self) -> list[Problem]:
        """All problems, split by number multiset: test first, then validation, the rest is train."""
        multisets = list(combinations_with_replacement(range(1, self.max_number + 1), self.n_numbers))
        np.random.default_rng(self.seed).shuffle(multisets)
        splits: dict[str, list[Problem]] = {"test": [], "validation": [], "train": []}
        wanted = {"test": self.n_test, "validation": self.n_validation, "train": self.n_train or math.inf}
        for numbers in multisets:
            split = next((split for split, found in splits.items() if len(found) < wanted[split]), None)
            if split is None:
                break
            solutions: dict[int, list[Chain]] = {}
            for chain in self.chains(numbers):
                solutions.setdefault(chain.value, []).append(chain)
            splits[split] += [
                self._problem(numbers, target, chains, split)
                for target, chains in sorted(solutions.items())
                if self.target_min <= target <= self.target_max and len(chains) <= self.max_solutions
            ]
        return self._sized(splits, "raise task.max_number")

    def _problem(self, numbers: tuple[int, ...], target: int, chains: list[Chain], split: str) -> Problem:
        swapped = [Chain((c.numbers[1], c.numbers[0], *c.numbers[2:]), c.operators) for c in chains]
        text = " ".join(map(str, numbers))
        return Problem(
            problem_id=f"countdown-{'-'.join(map(str, numbers))}-{target}",
            source=self.name,
            split=split,
            question=f"{text} make {target}",
            answers=tuple(sorted({self._spell(chain) for chain in (*chains, *swapped)})),
            metadata={"numbers": list(numbers), "target": target, "n_solutions": len(chains)},
        )

    def grade(self, problem: Problem, answer: str) -> Grade:
        """Right are the problem's answers, which are all there are; what is written like one is wrong."""
        form = re.sub("[0-9]+", _NUMBER, re.escape(self._example)).replace(r"\+", "[+*-]")
        if len(answer) > _MAX_ANSWER_CHARS or not re.fullmatch(form, answer.strip()):
            return Grade.UNPARSED
        return Grade.CORRECT if answer.strip() in problem.answers else Grade.WRONG

    @property
    def longest_answer(self) -> int:
        """Symbols of an answer; all have as many."""
        return len(self._example.split())

    @property
    def _example(self) -> str:
        return self._spell(Chain((1,) * self.n_numbers, ("+",) * (self.n_numbers - 1)))

    @abstractmethod
    def _spell(self, chain: Chain) -> str:
        """The one way to write a chain down as an answer."""


class Countdown(CountdownRules, ScratchTask):
    """The task; see the module's docstring for its rules.

    Some search traces are cut before they answer, so that a warm-started policy can be stopped anywhere. Others go on
    whatever they find, so that it knows every place that a thought can reach; their end is not imitated.
    """

    name: Literal["countdown"] = "countdown"
    cut_fraction: Fraction = Field(default=0.25, description="share of warm-start traces cut at a random symbol")
    long_fraction: Fraction = Field(default=0.05, description="share that go on to max_attempts whatever they find")
    max_attempts: PositiveInt = Field(default=48, description="most attempts of a warm-start trace")

    markers: ClassVar[tuple[str, ...]] = (THINK_OPEN, THINK_CLOSE)

    def _spell(self, chain: Chain) -> str:
        return chain.answer()

    @property
    def template(self) -> SymbolThinkParams:
        """Open-ended thinking between think tags, each attempt an episode."""
        return SymbolThinkParams(
            close=THINK_CLOSE, stop_phrase=THINK_CLOSE, extensions=(EPISODE_MARKER,), markers=(EPISODE_MARKER,)
        )

    def symbols(self) -> list[str]:
        """The vocabulary: numbers, numbers with the brackets of an answer (`(7`, `3)`), results, operators, words."""
        inputs = range(1, self.max_number + 1)
        opening = "(" * (self.n_numbers - 2)
        return [
            *map(str, range(max(self.target_max, self.max_number) + 1)),
            *(f"{opening}{n}" for n in inputs if opening),
            *(f"{n})" for n in inputs),
            *(f"={n}" for n in range(self.max_result + 1)),
            *("+", "-", "*", "make", EPISODE_MARKER, "low", "high", "yes"),
        ]

    def search_trace(self, problem: Problem, rng: np.random.Generator) -> SearchTrace:
        """An imperfect search for warm-starting: it repeats itself, stops early, or goes on after the answer is found.

        Every habit is drawn once per trace, so that a policy trained on a mix of traces has all of them and RL can
        choose among them. The mix is the one measured to leave most room for learning how to search.
        It answers with the chain that was found, else with the last one tried, else with a guess.
        """
        target, chains = problem.metadata["target"], self.chains(tuple(problem.metadata["numbers"]))
        untried = chains.copy()
        rng.shuffle(untried)
        if rng.random() < 0.4:  # a noisy heuristic: chains near the target first
            distance = np.array([abs(chain.value - target) for chain in untried])
            untried = [untried[i] for i in np.argsort(distance + rng.normal(0, 20, len(untried)), kind="stable")]
        untried = untried[::-1]  # popped from the end
        repeat = rng.choice([0.0, 0.3, 0.6], p=[0.3, 0.4, 0.3])
        stop_early = rng.choice([0.0, 0.12], p=[0.6, 0.4])
        go_on = rng.choice([0.0, 0.5, 0.9], p=[0.3, 0.3, 0.4])
        most_attempts = min(rng.choice([8, 16, 26], p=[0.2, 0.3, 0.5]), self.max_attempts)
        endless = rng.random() < self.long_fraction
        if endless:
            stop_early, go_on, most_attempts = 0.0, 1.0, self.max_attempts
        tried: list[Chain] = []
        found = False
        while len(tried) < most_attempts:
            again = max(repeat, 0.5) if found else repeat
            if tried and (not untried or rng.random() < again):
                tried.append(tried[rng.integers(len(tried))])
            else:
                tried.append(untried.pop())
            found = found or tried[-1].value == target
            if rng.random() < (1 - go_on if found else stop_early):
                break
        attempts = [chain.attempt(target).split() for chain in tried]
        symbols = [symbol for attempt in attempts for symbol in attempt]
        cut = rng.random() < self.cut_fraction
        if cut:
            symbols = symbols[: rng.integers(len(symbols) + 1)]
        starts = np.cumsum([0, *map(len, attempts[:-1])])
        n_judged = int(np.sum(starts + 3 * self.n_numbers <= len(symbols)))  # the cut spares their verdict
        judged = tried[:n_judged] or [chains[rng.integers(len(chains))]]
        answer = ([chain for chain in judged if chain.value == target] or judged)[-1]
        return SearchTrace(" ".join(symbols), answer.answer(), bool(cut or endless))
