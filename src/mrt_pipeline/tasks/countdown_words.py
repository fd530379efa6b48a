r"""Countdown in words, for language models: the problems of `countdown`, asked, searched and answered in plain text.

    Make 48 from 3, 7 and 12. Use each number exactly once, with +, - and *.

A thought is a stream of attempts, a paragraph each, in which `-` is ordinary subtraction:

    Let me try 12 + 7 = 19, 19 * 3 = 57. Too high.

    Wait, 7 - 3 = 4, 4 * 12 = 48. That works.

The answer is an expression in a box, `\boxed{(7 - 3) * 12}`. Any expression is right that uses each number once, with
these operations and brackets, and has the target as its value. There are more of them than can be listed, so J needs
the sampled prover.
"""

import re
from collections import Counter
from typing import Literal

import numpy as np
from pydantic import Field

from mrt_pipeline.registry import Fraction, PositiveInt
from mrt_pipeline.tasks.answers import find_answer
from mrt_pipeline.tasks.base import Grade, Problem, SearchTrace
from mrt_pipeline.tasks.countdown import Chain, CountdownRules

_MAX_ANSWER_CHARS = 200
_MAX_DEPTH = 20
_OPENINGS = ("Wait,", "But wait,", "Alternatively,")
_TOKEN = re.compile(r"[0-9]{1,6}|[()+*-]")
_SPELLINGS = {"\\times": "*", "\\cdot": "*", "\N{MULTIPLICATION SIGN}": "*", "\N{MINUS SIGN}": "-"}


class CountdownWords(CountdownRules):
    """The task; see the module's docstring.

    Warm-start traces search imperfectly: they repeat attempts, stop early, or go on after they have found something.
    Each habit is drawn once a trace.
    """

    name: Literal["countdown_words"] = "countdown_words"
    cut_fraction: Fraction = Field(default=0.25, description="share of warm-start traces cut after any attempt")
    max_attempts: PositiveInt = Field(default=8, description="most attempts of a warm-start trace")

    @property
    def longest_answer(self) -> int:
        """How many tokens an answer has is the model's affair."""
        return 1

    def _problem(self, numbers: tuple[int, ...], target: int, chains: list[Chain], split: str) -> Problem:
        problem = super()._problem(numbers, target, chains, split)
        *others, last = map(str, numbers)
        asked = f"Make {target} from {', '.join(others)} and {last}. Use each number exactly once, with +, - and *."
        answers = tuple(sorted({self._spell(chain) for chain in chains}))
        return Problem(problem.problem_id, self.name, split, asked, answers, problem.metadata)

    def _spell(self, chain: Chain) -> str:
        """As an expression with ordinary subtraction: the larger one stands first."""
        text, value = str(chain.numbers[0]), chain.numbers[0]
        results = zip(chain.operators, chain.numbers[1:], chain.results(), strict=True)
        for i, (sign, number, result) in enumerate(results):
            inner = f"({text})" if i else text
            text = f"{number} - {inner}" if sign == "-" and number > value else f"{inner} {sign} {number}"
            value = result
        return text

    def read(self, text: str) -> str:
        """The expression, without spaces."""
        found = find_answer(text) or ""
        for spelling, sign in _SPELLINGS.items():
            found = found.replace(spelling, sign)
        return "".join(found.split())

    def grade(self, problem: Problem, answer: str) -> Grade:
        """By its value and its numbers; it is read with a parser of bounded depth, and never run."""
        expression = self.read(answer)
        tokens = _TOKEN.findall(expression)
        if not tokens or len(expression) > _MAX_ANSWER_CHARS or "".join(tokens) != expression:
            return Grade.UNPARSED
        try:
            value = _Reader(tokens).value()
        except ValueError:
            return Grade.UNPARSED
        used = Counter(int(token) for token in tokens if token.isdigit())
        right = value == problem.metadata["target"] and used == Counter(problem.metadata["numbers"])
        return Grade.CORRECT if right else Grade.WRONG

    def search_trace(self, problem: Problem, rng: np.random.Generator) -> SearchTrace:
        """An imperfect search in paragraphs; it answers with what it found, else with its last attempt."""
        target = problem.metadata["target"]
        untried = self.chains(tuple(problem.metadata["numbers"]))
        rng.shuffle(untried)
        repeat = rng.choice([0.0, 0.3], p=[0.6, 0.4])
        stop_early = rng.choice([0.0, 0.2], p=[0.6, 0.4])
        go_on = rng.choice([0.0, 0.5], p=[0.5, 0.5])
        most = int(rng.integers(2, self.max_attempts + 1))
        tried: list[Chain] = []
        while len(tried) < most:
            again = tried and (not untried or rng.random() < repeat)
            tried.append(tried[rng.integers(len(tried))] if again else untried.pop())
            found = any(chain.value == target for chain in tried)
            if rng.random() < (1 - go_on if found else stop_early):
                break
        cut = rng.random() < self.cut_fraction
        if cut:
            tried = tried[: rng.integers(1, len(tried) + 1)]
        paragraphs = [self._attempt(chain, target, i, rng) for i, chain in enumerate(tried)]
        answer = ([chain for chain in tried if chain.value == target] or tried)[-1]
        said = f"\n\nThe answer is \\boxed{{{self._spell(answer)}}}."
        return SearchTrace("".join(paragraphs), said, bool(cut))

    @staticmethod
    def _attempt(chain: Chain, target: int, i: int, rng: np.random.Generator) -> str:
        opening = _OPENINGS[rng.integers(len(_OPENINGS))] if i else "Let me try"
        steps = []
        starts = (chain.numbers[0], *chain.results()[:-1])
        for value, sign, number, result in zip(
            starts, chain.operators, chain.numbers[1:], chain.results(), strict=True
        ):
            first, second = (number, value) if sign == "-" and number > value else (value, number)
            steps.append(f"{first} {sign} {second} = {result}")
        verdict = "That works." if chain.value == target else "Too low." if chain.value < target else "Too high."
        return f"{opening} {', '.join(steps)}. {verdict}\n\n"


class _Reader:
    """The value of an expression of numbers, +, -, * and brackets; ValueError for what is none."""

    def __init__(self, tokens: list[str]):
        self.tokens = [*tokens, ""]
        self.place = self.depth = 0

    def value(self) -> int:
        found = self._sum()
        if self.tokens[self.place]:
            raise ValueError("something follows the expression")
        return found

    def _sum(self) -> int:
        found = self._product()
        while (sign := self.tokens[self.place]) in ("+", "-"):
            self.place += 1
            found += self._product() if sign == "+" else -self._product()
        return found

    def _product(self) -> int:
        found = self._unit()
        while self.tokens[self.place] == "*":
            self.place += 1
            found *= self._unit()
        return found

    def _unit(self) -> int:
        token = self.tokens[self.place]
        self.place += 1
        if token.isdigit():
            return int(token)
        if token != "(" or self.depth == _MAX_DEPTH:
            raise ValueError("neither a number nor a bracket")
        self.depth += 1
        found = self._sum()
        if self.tokens[self.place] != ")":
            raise ValueError("a bracket is not closed")
        self.place += 1
        self.depth -= 1
        return found
