"""Where regret comes from: the paper's normalised regret of a trace, split by what the thinking was doing.

Every stretch of a trace up to the budget is one of four:
`never_found`: J never reaches the threshold.       `found_late`: until the first episode whose end does.
`lost`: later, in an episode that ends below it.    `unsure`: later, in one that ends at or above it, J being below 1.
An episode that the budget cuts counts by J there, interpolated; after the end of the trace its last J is held. The
parts of a trace sum to its regret. Counted besides: all thinking tokens, and those after J has reached the threshold.
"""

import numpy as np
import pandas as pd

from mrt_pipeline.evaluation.evaluate import reading
from mrt_pipeline.evaluation.intervals import Intervals
from mrt_pipeline.mrt.regret import regret, up_to

SOURCES = ("never_found", "found_late", "lost", "unsure")
QUANTITIES = ("regret", *SOURCES, "found", "tokens_after", "thinking_tokens")
"""What is averaged: regret, its parts, the share of traces that find, the tokens after that, all thinking tokens."""
DIFFICULTIES = ("easy", "medium", "hard", "unknown")
_TRACE = ["policy", "problem_id", "rollout_id"]
FOUND = 0.5
"""J from which on the answer counts as found."""


def regret_sources(episodes: pd.DataFrame, samples: pd.DataFrame, budget: int) -> pd.DataFrame:
    """A row a trace that stops where the model stops, at this budget: a `regret_sources` table.

    samples: a `rollouts` table of the base policy, for how difficult a problem is.
    """
    difficulty = difficulty_of(samples)
    rows = []
    for trace, points in reading(episodes, forced=False).groupby(_TRACE, sort=False):
        x, y = points["n_tokens"].to_numpy(), points["success"].to_numpy()
        reached, success = up_to(x, y, budget)
        found_at = float(min(reached[success >= FOUND], default=np.nan))
        measured = regret(x, y, budget), *trace_sources(x, y, budget).values()
        spent = float(min(x[-1], budget))
        known = difficulty.get(trace[1], "unknown"), budget
        rows.append((*trace, *known, *measured, found_at, spent - found_at, spent))
    columns = [*_TRACE, "difficulty", "budget", "regret", *SOURCES, "found_at", "tokens_after", "thinking_tokens"]
    return pd.DataFrame(rows, columns=columns)


def trace_sources(
    n_tokens: np.ndarray, success: np.ndarray, budget: float, threshold: float = FOUND
) -> dict[str, float]:
    """The parts of one trace's regret, by source; they sum to `regret`.

    n_tokens: thinking tokens at the episode boundaries, the first one 0, (n,). success: J there, (n,).
    """
    x, y = up_to(n_tokens, success, budget)
    areas = np.diff(x) * (1.0 - (y[:-1] + y[1:]) / 2) / budget
    right = y >= threshold
    found = np.maximum.accumulate(right)
    never, late, lost, unsure = range(len(SOURCES))
    source = np.where(found[:-1], np.where(right[1:], unsure, lost), late if found[-1] else never)
    parts = np.bincount(source, areas, len(SOURCES))
    return dict(zip(SOURCES, np.minimum(parts, 1.0).tolist(), strict=True))  # a sum of many may round above 1


def difficulty_of(samples: pd.DataFrame) -> dict[str, str]:
    """How difficult each problem is for the policy of the samples: right in at least 2/3 of them, in at most 1/3."""
    rates = samples.groupby("problem_id")["reward"].mean().to_dict()
    return {name: "easy" if rate >= 2 / 3 else "hard" if rate <= 1 / 3 else "medium" for name, rate in rates.items()}


def source_values(sources: pd.DataFrame) -> dict[tuple[str, str, int], pd.Series]:
    """Of one policy's `regret_sources` table, by (difficulty, quantity, budget): the mean of each problem's traces.

    Difficulties that occur, easy ones first, then `all`. Tokens after are those of the traces that find.
    """
    table = sources.assign(found=sources["found_at"].notna().astype(float))
    by_problem = table.groupby("problem_id")
    means, difficulty = by_problem[list(QUANTITIES)].mean(), by_problem["difficulty"].first()
    groups = {name: means[difficulty == name] for name in DIFFICULTIES} | {"all": means}
    budget = int(sources["budget"].iloc[0])
    return {
        (name, quantity, budget): group[quantity]
        for name, group in groups.items()
        for quantity in (QUANTITIES if len(group) else ())
    }


def summarize_sources(sources: pd.DataFrame, intervals: Intervals) -> pd.DataFrame:
    """A row a policy, difficulty and quantity, the mean over problems: a `regret_sources_summary` table."""
    values = {
        (policy, *place): means
        for policy, table in sources.groupby("policy", sort=False)
        for place, means in source_values(table).items()
    }
    table = intervals.table("mean", ["policy", "difficulty", "quantity", "budget"], values)
    return table.assign(n_problems=[len(means) for means in values.values()])
