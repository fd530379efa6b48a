"""Budget extrapolation: how good a policy is at every budget, from its labelled traces.

Two readings of the same traces. `forced` False: the model stops where it wants to, and its value is held from there
on. `forced` True: an attempt to stop is turned into an extension (budget forcing), and the thought is cut exactly at
the budget. Up to the natural end the two agree. Where no answer is to follow the stop, stopping by itself gives the
reward that is known there: of the answer in the stream (backtracking search), or 0 where a trace ends in its thought.
"""

from collections.abc import Mapping, Sequence

import numpy as np
import pandas as pd

from mrt_pipeline.evaluation.intervals import Intervals, problem_means
from mrt_pipeline.mrt.regret import AREAS, regret

_TRACE = ["policy", "problem_id", "rollout_id"]


def budgets_of(thinking_budget: int, multiples: Sequence[float]) -> list[int]:
    """The budgets in thinking tokens, ascending and distinct."""
    return sorted({max(1, round(thinking_budget * multiple)) for multiple in multiples})


def regret_by_budget(episodes: pd.DataFrame, budgets: Sequence[int], intervals: Intervals) -> pd.DataFrame:
    """Normalised regret of every policy in an `episodes` table, definitions `paper` and `step`: a `regret` table.

    Mean over the traces of a problem, then over problems.
    """
    curves = {
        (policy, forced, definition): reading(table, forced)
        for policy, table in episodes.groupby("policy", sort=False)
        for forced in (False, True)
        for definition in AREAS
    }
    return _regret_table(curves, budgets, intervals)


def regret_by_all_tokens(
    votes: pd.DataFrame, rollouts: pd.DataFrame, budgets: Sequence[int], intervals: Intervals
) -> pd.DataFrame:
    """The same by the released notebook's count of tokens, definition `paper_all_tokens`, natural stop.

    x counts the prompt, the thought and the mean of the answers forced after it, y is their mean reward; both are of
    the forced answers in a `votes` table. `budgets` are of all these tokens. Where shorter answers make a later point
    come earlier, points are taken in the order of x.
    """
    points = votes.merge(rollouts[[*_TRACE, "prompt_token_ids"]], on=_TRACE)
    points["n_tokens"] = points["prompt_token_ids"].map(len) + points["n_tokens"] + points["answer_tokens"].map(np.mean)
    points["success"] = points["rewards"].map(np.mean)
    curves = {
        (policy, False, "paper_all_tokens"): table.sort_values(["problem_id", "rollout_id", "n_tokens"], kind="stable")
        for policy, table in points.groupby("policy", sort=False)
    }
    return _regret_table(curves, budgets, intervals)


def _regret_table(curves: Mapping[tuple, pd.DataFrame], budgets: Sequence[int], intervals: Intervals) -> pd.DataFrame:
    """curves: the points of traces, by (policy, forced, definition)."""
    values = {
        (policy, forced, definition, budget): regrets
        for (policy, forced, definition), table in curves.items()
        for budget, regrets in problem_regrets(table, budgets, "step" if definition == "step" else "paper").items()
    }
    return intervals.table("regret", ["policy", "forced", "definition", "budget"], values)


def accuracy_by_budget(
    anytime: pd.DataFrame, rollouts: pd.DataFrame, budgets: Sequence[int], intervals: Intervals
) -> pd.DataFrame:
    """Mean success and thinking tokens of every policy at every budget: an `accuracy` table."""
    anytime = anytime.merge(rollouts[[*_TRACE, "natural_length"]], on=_TRACE)
    values, spent = {}, []
    for (policy, forced), table in anytime.groupby(["policy", "forced"], sort=False):
        for budget in budgets:
            points = table[table["n_tokens"] == budget]
            if len(points):
                spent.append(float(budget) if forced else points["natural_length"].clip(upper=budget).mean())
                values[policy, budget, forced] = problem_means(points["success"], points["problem_id"])
    return intervals.table("accuracy", ["policy", "budget", "forced"], values).assign(thinking_tokens=spent)


def reading(episodes: pd.DataFrame, forced: bool) -> pd.DataFrame:
    """The rows of an `episodes` table that make up the curve of one reading."""
    if forced:  # tables of runs from before backtracking search have no such column
        return episodes[~episodes["stopped"]] if "stopped" in episodes else episodes
    return episodes[~episodes["forced"]]


def problem_regrets(curves: pd.DataFrame, budgets: Sequence[int], definition: str = "paper") -> dict[int, pd.Series]:
    """Mean regret of the traces of each problem of one policy, at each budget.

    curves: the points of traces, `n_tokens` and `success`; those of a trace in the order of tokens.
    """
    traces = [
        (problem, trace["n_tokens"].to_numpy(), trace["success"].to_numpy())
        for (problem, _), trace in curves.groupby(["problem_id", "rollout_id"], sort=False)
    ]
    problems = [problem for problem, _, _ in traces]
    return {b: problem_means([regret(x, y, b, definition) for _, x, y in traces], problems) for b in budgets}


def measure(
    episodes: pd.DataFrame, anytime: pd.DataFrame, budgets: Sequence[int]
) -> dict[tuple[str, int, bool], pd.Series]:
    """Regret and accuracy of one policy on every problem, by (quantity, budget, forced); indexed by problem, sorted."""
    found: dict[tuple[str, int, bool], pd.Series] = {}
    for forced in (False, True):
        for budget, regrets in problem_regrets(reading(episodes, forced), budgets).items():
            found["regret", budget, forced] = regrets
            points = anytime[(anytime["n_tokens"] == budget) & (anytime["forced"] == forced)]
            if len(points):
                found["accuracy", budget, forced] = problem_means(points["success"], points["problem_id"])
    return found
