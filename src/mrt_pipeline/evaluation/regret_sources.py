"""Where regret comes from: the paper's normalised regret of a trace, split by what the thinking was doing.

Every stretch of a trace up to the budget is one of four:
`never_found`: J never reaches the threshold.       `found_late`: until the first episode whose end does.
`lost`: later, in an episode that ends below it.    `unsure`: later, in one that ends at or above it, J being below 1.
An episode that the budget cuts counts by J there, interpolated; after the end of the trace its last J is held. The
parts of a trace sum to its regret. Tokens that are thought after J has reached the threshold are counted besides.
"""

import numpy as np
import pandas as pd

from mrt_pipeline.evaluation.evaluate import BASE, reading
from mrt_pipeline.evaluation.intervals import measured
from mrt_pipeline.mrt.regret import regret

SOURCES = ("never_found", "found_late", "lost", "unsure")
QUANTITIES = ("regret", *SOURCES, "found", "tokens_after")
"""What is averaged: regret, its parts, the share of traces that find, and the tokens after that."""
DIFFICULTIES = ("easy", "medium", "hard", "unknown")


def regret_sources(episodes: pd.DataFrame, samples: pd.DataFrame, budget: int, threshold: float = 0.5) -> pd.DataFrame:
    """A row a trace that stops where the model stops, at this budget: a `regret_sources` table.

    samples: a `rollouts` table of the base policy, for how difficult a problem is.
    """
    difficulty = difficulty_of(samples)
    rows = []
    for (policy, problem, rollout), trace in reading(episodes, forced=False).groupby(
        ["policy", "problem_id", "rollout_id"], sort=False
    ):
        x, y = trace["n_tokens"].to_numpy(), trace["success"].to_numpy()
        reached, value = _up_to(x, y, budget)
        found = np.flatnonzero(value >= threshold)
        found_at = float(reached[found[0]]) if len(found) else np.nan
        rows.append(
            {
                "policy": policy,
                "problem_id": problem,
                "rollout_id": rollout,
                "difficulty": difficulty.get(problem, "unknown"),
                "budget": budget,
                "regret": regret(x, y, budget),
                **trace_sources(x, y, budget, threshold),
                "found_at": found_at,
                "tokens_after": min(float(x[-1]), float(budget)) - found_at,
            }
        )
    return pd.DataFrame(rows)


def trace_sources(n_tokens: np.ndarray, success: np.ndarray, budget: float, threshold: float) -> dict[str, float]:
    """The parts of one trace's regret, by source; they sum to `regret`.

    n_tokens: thinking tokens at the episode boundaries, the first one 0, (n,). success: J there, (n,).
    """
    x, y = _up_to(n_tokens, success, budget)
    state = y >= threshold
    areas = np.diff(x) * (1.0 - (y[:-1] + y[1:]) / 2) / budget
    parts = dict.fromkeys(SOURCES, 0.0)
    reached = np.flatnonzero(state)
    for i, area in enumerate(areas, start=1):
        if not len(reached):
            source = "never_found"
        elif i <= reached[0]:
            source = "found_late"
        else:
            source = "unsure" if state[i] else "lost"
        parts[source] += float(area)
    return {source: min(1.0, part) for source, part in parts.items()}  # a sum of many may round above 1


def _up_to(n_tokens: np.ndarray, success: np.ndarray, budget: float) -> tuple[np.ndarray, np.ndarray]:
    """The points of a curve before the budget and the one at it, as `anytime_area` has them."""
    inside = np.asarray(n_tokens) < budget
    end = int(inside.sum()) + 1
    at_budget = np.interp(budget, n_tokens[:end], success[:end])
    return np.append(np.asarray(n_tokens)[inside], budget).astype(np.float64), np.append(success[inside], at_budget)


def difficulty_of(samples: pd.DataFrame) -> dict[str, str]:
    """How difficult each problem is for the policy of the samples: right in at least 2/3 of them, in at most 1/3."""
    rates = samples.groupby("problem_id")["reward"].mean()
    return {
        str(problem): "easy" if rate >= 2 / 3 else "hard" if rate <= 1 / 3 else "medium"
        for problem, rate in rates.items()
    }


def source_means(sources: pd.DataFrame) -> pd.DataFrame:
    """The `QUANTITIES` of one policy by problem, sorted: means over its traces; tokens after over those that find."""
    table = sources.assign(found=sources["found_at"].notna().astype(float))
    return table.groupby("problem_id")[list(QUANTITIES)].mean().sort_index()


def by_difficulty(difficulty: pd.Series) -> dict[str, np.ndarray]:
    """The problems of each difficulty that occurs, easy ones first, as a mask (n_problems,); then `all`."""
    masks = {name: (difficulty == name).to_numpy() for name in DIFFICULTIES}
    return {name: mask for name, mask in masks.items() if mask.any()} | {"all": np.ones(len(difficulty), bool)}


def summarize_sources(sources: pd.DataFrame, confidence: float, n_resamples: int, seed: int) -> pd.DataFrame:
    """A row a policy, difficulty and quantity: a `regret_sources_summary` table.

    Means over the traces of a problem, then over problems, with bootstrap intervals over problems; beside it the
    difference to the policy `base`, which comes first, paired by problem.
    """
    difficulty = sources.groupby("problem_id")["difficulty"].first().sort_index()
    rows, base = [], None
    for policy, table in sources.groupby("policy", sort=False):
        means = source_means(table)
        for name, chosen in by_difficulty(difficulty[means.index]).items():
            for quantity in QUANTITIES:
                values = means.loc[chosen, quantity]
                compared = None if base is None else base[quantity].reindex(values.index)
                where = {"policy": policy, "difficulty": name, "quantity": quantity, "budget": table["budget"].iloc[0]}
                columns = measured("mean", values, compared, confidence, n_resamples, seed)
                rows.append({**where, **columns, "n_problems": len(values)})
        if policy == BASE:
            base = means
    return pd.DataFrame(rows)
