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
from typing import ClassVar, Literal

import numpy as np
from pydantic import Field

from mrt_pipeline.policy.template import SymbolBacktrackParams
from mrt_pipeline.tasks.base import Problem, ScratchTask, SearchTrace
from mrt_pipeline.tasks.countdown import Chain, CountdownRules

OPENING = ":"


def _prefix(chain: Chain, step: int) -> tuple:
    """The first `step` operations of a chain; nothing for step 0."""
    return (chain.numbers[: step + 1], chain.operators[:step]) if step else ()


def prefix_values(chain: Chain, chains: Sequence[Chain], target: int) -> list[float]:
    """Value of each prefix of `chain` that can be gone back to: the share of the legal completions that solve it.

    chains: all legal chains of the problem, `chain` among them. Returns one value in [0, 1] for each of the steps 0 to
    len(operators) - 1.
    """
    values = []
    for step in range(len(chain.operators)):
        solved = [other.value == target for other in chains if _prefix(other, step) == _prefix(chain, step)]
        values.append(sum(solved) / len(solved))
    return values


class CountdownBacktracking(CountdownRules, ScratchTask):
    """The task; see the module's docstring for its rules."""

    name: Literal["countdown_backtracking"] = "countdown_backtracking"
    backtrack: Literal["value", "restart"] = Field(default="value", description="where warm-start traces go back to")

    markers: ClassVar[tuple[str, ...]] = (OPENING,)

    def _spell(self, chain: Chain) -> str:
        return chain.written_out()

    @property
    def _backs(self) -> tuple[str, ...]:
        return tuple(f"back{step}" for step in range(self.n_numbers - 1))

    @property
    def template(self) -> SymbolBacktrackParams:
        """Attempts separated by back symbols."""
        return SymbolBacktrackParams(back=self._backs)

    def symbols(self) -> list[str]:
        """The vocabulary: numbers, results, operators, back symbols."""
        return [
            *map(str, range(max(self.target_max, self.max_number) + 1)),
            *(f"={n}" for n in range(self.max_result + 1)),
            *("+", "-", "*", "make", *self._backs),
        ]

    def trace_metrics(self, traces: Sequence[str]) -> dict[str, float]:
        """`kept_prefix`: the share of attempts after back1 or a later step that really keep these steps."""
        kept = [keeps_it for trace in traces for keeps_it in kept_prefix(trace)]
        return {"kept_prefix": float(np.mean(kept))} if kept else {}

    def search_trace(self, problem: Problem, rng: np.random.Generator) -> SearchTrace:
        """An imperfect search for warm-starting: it goes astray, repeats itself, stops early, or goes on when done.

        Every habit is drawn once per trace, as in `Countdown.search_trace`. The last attempt is the answer, so a trace
        that has not found the solution ends wrongly. A search that is out of attempts is cut: stopping is not imitated.
        """
        target, chains = problem.metadata["target"], self.chains(tuple(problem.metadata["numbers"]))
        astray = rng.choice([0.0, 0.2, 0.5], p=[0.4, 0.3, 0.3])
        repeat = rng.choice([0.0, 0.2, 0.5], p=[0.4, 0.3, 0.3])
        stop_early = rng.choice([0.0, 0.12], p=[0.6, 0.4])
        go_on = rng.choice([0.0, 0.5], p=[0.6, 0.4])
        most_attempts = rng.choice([8, 16, 26], p=[0.2, 0.3, 0.5])
        tried = [chains[rng.integers(len(chains))]]
        symbols: list[str] = []
        while not (stopped := rng.random() < (1 - go_on if tried[-1].value == target else stop_early)):
            if len(tried) == most_attempts:
                break
            last = tried[-1]
            step = self._step_back(last, chains, target, rng, astray)
            step, following = _next_attempt(last, step, tried, chains, rng, repeat)
            symbols += [last.written_out(), self._backs[step]]
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
    seen = set(tried)
    again = rng.random() < repeat
    untried = [chain for chain in chains if chain not in seen]
    choices = [chain for chain in (tried if again else untried) if _prefix(chain, step) == _prefix(last, step)]
    if not choices:
        step, choices = 0, untried or list(chains)
    return step, choices[rng.integers(len(choices))]


def kept_prefix(trace: str) -> list[bool]:
    """For each attempt of a trace that follows a back symbol of step 1 or more: does it really keep these steps?

    trace: text with the attempts and back symbols; what stands before the opening, and special tokens, are left out.
    """
    stream = re.sub(r"<\S*", "", trace.rpartition(f" {OPENING} ")[2])
    first, *rest = re.split(r"back(\d+)", stream)
    if rest and not rest[-1].strip():  # nothing was attempted after going back
        del rest[-2:]
    attempts = [text.split() for text in (first, *rest[1::2])]
    # Of `step` operations, the first number, then an operator, a number and a result each.
    kept = [1 + 3 * int(step) for step in rest[::2]]
    return [len(b) >= n and b[:n] == a[:n] for a, n, b in zip(attempts, kept, attempts[1:], strict=False) if n > 1]
