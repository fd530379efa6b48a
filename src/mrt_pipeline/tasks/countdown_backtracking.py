"""Countdown as backtracking search: the second parameterisation of the MRT paper (arXiv 2503.07572).

Rules and problems are those of `countdown`. A trace has no think markers; it alternates between attempts, chains with
their intermediate results written out, and back symbols that name the step to go back to:

    3 7 12 make 48 : 12 + 7 =19 * 3 =57 back1 12 + 7 =19 - 3 =16 back0 7 - 3 =4 * 12 =48

`back0` goes back to the start, `back1` keeps the first operation with its result, and so on up to the last but one. The
attempt after a back symbol is written out in full and begins with the steps that are kept. The last attempt is the
answer. For three numbers an attempt has seven symbols and an episode, an attempt with its back symbol, eight.

Warm-start traces go back by a heuristic, `backtrack`:

    value     to the step whose kept prefix has the highest value, the share of its legal completions that solve the
              problem; after the paper's warm start, which goes back to prefixes of high success rate
    restart   always to the start: plain retries, as in RISE (arXiv 2407.18219)
"""

import re
from collections.abc import Sequence
from functools import lru_cache
from typing import ClassVar, Literal

import numpy as np
from pydantic import Field

from mrt_pipeline.policy.template import SymbolBacktrackParams
from mrt_pipeline.tasks.base import Grade, Problem, SearchTrace
from mrt_pipeline.tasks.countdown import Chain, CountdownRules, legal_chains

OPENING = ":"
_MAX_ANSWER_CHARS = 200
_STEP = re.compile(r"([+*-]) ([0-9]{1,6}) =([0-9]{1,6})")


def back_symbol(step: int) -> str:
    """The symbol that goes back to a step: the first `step` operations are kept."""
    return f"back{step}"


def keeps(chain: Chain, step: int, other: Chain) -> bool:
    """Whether `chain` begins with the first `step` operations of `other`; any chain does for step 0."""
    if step == 0:
        return True
    return chain.numbers[: step + 1] == other.numbers[: step + 1] and chain.operators[:step] == other.operators[:step]


def prefix_values(chain: Chain, chains: Sequence[Chain], target: int) -> list[float]:
    """Value of each prefix of `chain` that can be gone back to: the share of the legal completions that solve it.

    chains: all legal chains of the problem, `chain` among them. Returns one value in [0, 1] for each of the steps 0 to
    len(operators) - 1.
    """
    values = []
    for step in range(len(chain.operators)):
        completions = [other for other in chains if keeps(other, step, chain)]
        values.append(sum(other.results()[-1] == target for other in completions) / len(completions))
    return values


_legal = lru_cache(maxsize=4_096)(legal_chains)  # a warm start asks for the same problems again and again


class CountdownBacktracking(CountdownRules):
    """The task; see the module's docstring for its rules."""

    name: Literal["countdown_backtracking"] = "countdown_backtracking"
    backtrack: Literal["value", "restart"] = Field(default="value", description="where warm-start traces go back to")

    markers: ClassVar[tuple[str, ...]] = (OPENING,)

    @property
    def longest_answer(self) -> int:
        """Symbols of an attempt: numbers, operators and results."""
        return 3 * self.n_numbers - 2

    def _spell(self, chain: Chain) -> str:
        return chain.written_out()

    @property
    def template(self) -> SymbolBacktrackParams:
        """Attempts separated by back symbols."""
        return SymbolBacktrackParams(back=tuple(self._backs()))

    def _backs(self) -> list[str]:
        return [back_symbol(step) for step in range(self.n_numbers - 1)]

    def symbols(self) -> list[str]:
        """The vocabulary: numbers, results, operators, back symbols."""
        return [
            *map(str, range(max(self.target_max, self.max_number) + 1)),
            *(f"={n}" for n in range(self.max_result + 1)),
            *"+-*",
            "make",
            *self._backs(),
        ]

    def grade(self, problem: Problem, answer: str) -> Grade:
        """Grade an attempt: every number used once, every written result right, and the last one the target."""
        written = self._parse(answer)
        if written is None:
            return Grade.UNPARSED
        chain, results = written
        if sorted(chain.numbers) != sorted(problem.metadata["numbers"]) or chain.results() != results:
            return Grade.WRONG
        legal = max(results) <= self.max_result
        return Grade.CORRECT if legal and results[-1] == problem.metadata["target"] else Grade.WRONG

    def _parse(self, answer: str) -> tuple[Chain, list[int]] | None:
        """The chain that `answer` writes down with the results it claims, or None if it is none of this length."""
        if len(answer) > _MAX_ANSWER_CHARS:
            return None
        first, _, rest = answer.strip().partition(" ")
        steps = _STEP.findall(rest)
        numbers, operators = [first, *(number for _, number, _ in steps)], [operator for operator, _, _ in steps]
        spelled = " ".join([first, *(f"{operator} {number} ={result}" for operator, number, result in steps)])
        if not re.fullmatch("[0-9]{1,6}", first) or len(steps) != self.n_numbers - 1 or spelled != answer.strip():
            return None
        results = [result for _, _, result in steps]
        if any(str(int(text)) != text for text in (*numbers, *results)):  # one spelling only: no leading zeros
            return None
        return Chain(tuple(map(int, numbers)), tuple(operators)), list(map(int, results))

    def trace_metrics(self, traces: Sequence[str]) -> dict[str, float]:
        """`kept_prefix`: the share of attempts after back1 or a later step that really keep these steps."""
        kept = [keeps_it for trace in traces for keeps_it in kept_prefix(trace)]
        return {"kept_prefix": float(np.mean(kept))} if kept else {}

    def search_trace(self, problem: Problem, rng: np.random.Generator) -> SearchTrace:
        """An imperfect search for warm-starting: it goes astray, repeats itself, stops early, or goes on when done.

        Every habit is drawn once per trace, as in `Countdown.search_trace`. The last attempt is the answer, so a trace
        that has not found the solution ends wrongly. A search that is out of attempts is cut: stopping is not imitated.
        """
        target, chains = problem.metadata["target"], _legal(tuple(problem.metadata["numbers"]), self.max_result)
        astray = rng.choice([0.0, 0.2, 0.5], p=[0.4, 0.3, 0.3])
        repeat = rng.choice([0.0, 0.2, 0.5], p=[0.4, 0.3, 0.3])
        stop_early = rng.choice([0.0, 0.12], p=[0.6, 0.4])
        go_on = rng.choice([0.0, 0.5], p=[0.6, 0.4])
        most_attempts = rng.choice([8, 16, 26], p=[0.2, 0.3, 0.5])
        tried = [chains[rng.integers(len(chains))]]
        symbols: list[str] = []
        stopped = False
        while not stopped:
            last = tried[-1]
            stopped = bool(rng.random() < (1 - go_on if last.results()[-1] == target else stop_early))
            if stopped or len(tried) == most_attempts:
                break
            step = self._step_back(last, chains, target, rng, astray)
            step, following = _next_attempt(last, step, tried, chains, rng, repeat)
            symbols += [last.written_out(), back_symbol(step)]
            tried.append(following)
        return SearchTrace(" ".join(symbols), tried[-1].written_out(), cut=not stopped)

    def _step_back(
        self, last: Chain, chains: Sequence[Chain], target: int, rng: np.random.Generator, astray: float
    ) -> int:
        if self.backtrack == "restart":
            return 0
        if rng.random() < astray:
            return int(rng.integers(len(last.operators)))
        values = prefix_values(last, chains, target)
        return max(range(len(values)), key=lambda step: (values[step], step))  # of equals, the one that keeps most


def _next_attempt(
    last: Chain, step: int, tried: Sequence[Chain], chains: Sequence[Chain], rng: np.random.Generator, repeat: float
) -> tuple[int, Chain]:
    """An attempt that keeps `step` operations: an untried one, or now and then (`repeat`) one that was tried before.

    Where no untried one is left, the search goes back to the start instead; where all are tried, anything is repeated.
    Returns the step that was really gone back to as well.
    """
    if rng.random() < repeat:
        again = [chain for chain in tried if keeps(chain, step, last)]
        return step, again[rng.integers(len(again))]
    seen = set(tried)
    for kept in (step, 0):
        untried = [chain for chain in chains if chain not in seen and keeps(chain, kept, last)]
        if untried:
            return kept, untried[rng.integers(len(untried))]
    return 0, chains[rng.integers(len(chains))]


def kept_prefix(trace: str) -> list[bool]:
    """For each attempt of a trace that follows a back symbol of step 1 or more: does it really keep these steps?

    trace: text with the attempts and back symbols; what stands before the opening, and special tokens, are left out.
    """
    symbols = [symbol for symbol in trace.rpartition(f" {OPENING} ")[2].split() if not symbol.startswith("<")]
    kept, before, attempt, step = [], [], [], 0
    ended = not symbols or symbols[-1].startswith("back")  # nothing was attempted after it
    for symbol in symbols if ended else [*symbols, back_symbol(0)]:
        if not symbol.startswith("back"):
            attempt.append(symbol)
            continue
        if step:
            n = 1 + 3 * step  # the first number, then an operator, a number and a result for each step
            kept.append(len(attempt) >= n and attempt[:n] == before[:n])
        before, attempt, step = attempt, [], int(symbol[4:])
    return kept
