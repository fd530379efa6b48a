"""Budget extrapolation: how good a policy is at every budget, from its labelled traces.

Two readings of the same traces. `forced` False: the model stops where it wants to, and its value is held from there
on. `forced` True: an attempt to stop is turned into an extension (budget forcing), and the thought is cut exactly at
the budget. Up to the natural end the two agree. Where no answer is to follow the stop, stopping by itself gives the
reward that is known there: of the answer in the stream (backtracking search), or 0 where a trace ends in its thought.
"""

from collections.abc import Sequence

import numpy as np
import pandas as pd

from mrt_pipeline.evaluation.intervals import measured, problem_means
from mrt_pipeline.mrt.regret import AREAS, regret

BASE = "base"
"""The policy, and arm, that the others are compared with."""


def budgets_of(thinking_budget: int, multiples: Sequence[float]) -> list[int]:
    """The budgets in thinking tokens, ascending and distinct."""
    return sorted({max(1, round(thinking_budget * multiple)) for multiple in multiples})


def regret_by_budget(
    episodes: pd.DataFrame, budgets: Sequence[int], confidence: float, n_resamples: int, seed: int
) -> pd.DataFrame:
    """Normalised regret of every policy in an `episodes` table, definitions `paper` and `step`: a `regret` table.

    Mean over the traces of a problem, then over problems, with bootstrap intervals over problems; beside it the
    difference to the policy `base`, which comes first, paired by problem.
    """
    rows, base = [], {}
    for policy, table in episodes.groupby("policy", sort=False):
        for forced in (False, True):
            curves = trace_curves(reading(table, forced))
            for definition in AREAS:
                where = {"policy": policy, "forced": forced, "definition": definition}
                rows += _regret_rows(curves, budgets, where, base, confidence, n_resamples, seed)
    return pd.DataFrame(rows)


def regret_by_all_tokens(
    votes: pd.DataFrame, rollouts: pd.DataFrame, budgets: Sequence[int], confidence: float, n_resamples: int, seed: int
) -> pd.DataFrame:
    """The same by the released notebook's count of tokens, definition `paper_all_tokens`, natural stop.

    x counts the prompt, the thought and the mean of the answers forced after it, y is their mean reward; both are of
    the forced answers in a `votes` table. `budgets` are of all these tokens. Where shorter answers make a later point
    come earlier, points are taken in the order of x.
    """
    prompts = rollouts.set_index(["policy", "problem_id", "rollout_id"])["prompt_token_ids"].map(len)
    rows, base = [], {}
    for policy, table in votes.groupby("policy", sort=False):
        curves = []
        for (problem, rollout), trace in table.groupby(["problem_id", "rollout_id"], sort=False):
            spent = prompts[policy, problem, rollout] + trace["n_tokens"] + trace["answer_tokens"].map(np.mean)
            order = np.argsort(spent, kind="stable")
            curves.append((problem, spent.to_numpy()[order], trace["rewards"].map(np.mean).to_numpy()[order]))
        where = {"policy": policy, "forced": False, "definition": "paper_all_tokens"}
        rows += _regret_rows(curves, budgets, where, base, confidence, n_resamples, seed)
    return pd.DataFrame(rows)


def _regret_rows(
    curves: Sequence[tuple[str, np.ndarray, np.ndarray]],
    budgets: Sequence[int],
    where: dict[str, str | bool],
    base: dict[tuple, pd.Series],
    confidence: float,
    n_resamples: int,
    seed: int,
) -> list[dict[str, str | bool | float]]:
    """base: regrets of the policy `base` by problem, which its own rows put there for those that follow."""
    definition = "step" if where["definition"] == "step" else "paper"
    rows = []
    for budget in budgets:
        regrets = [regret(x, y, budget, definition) for _, x, y in curves]
        means = problem_means(regrets, [problem for problem, _, _ in curves])
        key = (where["definition"], where["forced"], budget)
        columns = measured("regret", means, base.get(key), confidence, n_resamples, seed)
        rows.append({**where, "budget": budget, **columns})
        if where["policy"] == BASE:
            base[key] = means
    return rows


def accuracy_by_budget(
    anytime: pd.DataFrame,
    rollouts: pd.DataFrame,
    budgets: Sequence[int],
    confidence: float,
    n_resamples: int,
    seed: int,
) -> pd.DataFrame:
    """Mean success and thinking tokens of every policy at every budget: an `accuracy` table.

    Intervals and differences as in `regret_by_budget`.
    """
    length = rollouts.set_index(["policy", "problem_id", "rollout_id"])["natural_length"]
    rows, base = [], {}
    for (policy, forced), table in anytime.groupby(["policy", "forced"], sort=False):
        for budget in budgets:
            points = table[table["n_tokens"] == budget]
            if points.empty:
                continue
            means = problem_means(points["success"], points["problem_id"])
            columns = measured("accuracy", means, base.get((budget, forced)), confidence, n_resamples, seed)
            natural = length.loc[pd.MultiIndex.from_frame(points[["policy", "problem_id", "rollout_id"]])]
            spent = float(budget) if forced else float(np.minimum(natural, budget).mean())
            where = {"policy": policy, "budget": budget, "forced": bool(forced)}
            rows.append({**where, **columns, "thinking_tokens": spent})
            if policy == BASE:
                base[budget, forced] = means
    return pd.DataFrame(rows)


def reading(episodes: pd.DataFrame, forced: bool) -> pd.DataFrame:
    """The rows of an `episodes` table that make up the curve of one reading."""
    if forced:  # tables of runs from before backtracking search have no such column
        return episodes[~episodes["stopped"]] if "stopped" in episodes else episodes
    return episodes[~episodes["forced"]]


def trace_curves(episodes: pd.DataFrame) -> list[tuple[str, np.ndarray, np.ndarray]]:
    """(problem, n_tokens, success) of each trace; rows of a trace stand in the order of their episodes."""
    return [
        (str(problem), trace["n_tokens"].to_numpy(), trace["success"].to_numpy())
        for (problem, _), trace in episodes.groupby(["problem_id", "rollout_id"], sort=False)
    ]
