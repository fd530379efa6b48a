"""Stop and vote, or keep thinking? From answers forced at every episode boundary of a trace (a `votes` table).

[maj@p]_j: after j episodes stop, and let p answers vote (arXiv 2503.07572, section 5). The paper compares it with
answering directly: pass@k of answers without any thought, an oracle's number, since one right answer of k is enough.

`stopping regret` is the second regret of the paper (appendix E, released notebook `regret_additional.ipynb`), with a
comparator that is measured instead of assumed to be perfect: at each episode, going on costs one and stopping to
vote over more answers costs as much. In steps of one episode, over x = 1, 2, 4, 6 units of tokens,

    stop(x)  = maj@1, maj@2, maj@4, (maj@4 + maj@8) / 2   at the boundary before the episode
    think(x) = straight line from maj@1 before the episode to maj@1 after it
    regret   = sum over episodes of area(max(stop, think) - think) / sum of area(max(stop, think)).

Not reproduced from the notebook: there an answer's vote weighs 2 to its mean log-probability, here all count the same;
there 100,000 subsets are drawn, here all are counted exactly.
"""

from collections.abc import Sequence
from math import comb

import numpy as np
import pandas as pd

from mrt_pipeline.evaluation.evaluate import BASE
from mrt_pipeline.evaluation.intervals import measured, problem_means
from mrt_pipeline.evaluation.majority import majority_accuracy

_UNITS = np.array([1.0, 2.0, 4.0, 6.0])
MOST_EPISODES = 10
"""Of [maj@p]_j and of stopping regret, shown."""
LEAST_VOTES = 8
"""Answers at a boundary that stopping regret needs."""


def shown_episodes(votes: pd.DataFrame) -> range:
    """The first episodes of which [maj@p]_j and stopping regret are shown."""
    return range(1, min(MOST_EPISODES, int(votes["episode"].max()) + 1) + 1)


def vote_accuracy(
    votes: pd.DataFrame, episodes: Sequence[int], confidence: float, n_resamples: int, seed: int
) -> pd.DataFrame:
    """[maj@p]_j and pass@k of direct answers, by policy: a `stop_and_vote` table.

    episodes: the js; a trace with fewer episodes votes where it ended. `n_tokens` is what is spent on average, thinking
    and p answers. Rows with `method` direct have episode 0 and p = k. Intervals are over problems, all of the same
    draws; differences to the policy `base`, which comes first, are paired by problem.
    """
    rows, base = [], {}
    for policy, table in votes.groupby("policy", sort=False):
        found = _accuracies(table, episodes)
        for (method, j, p), (accuracy, tokens) in found.items():
            compared = base[method, j, p][0] if base else None
            columns = measured("accuracy", accuracy, compared, confidence, n_resamples, seed)
            rows.append({"policy": policy, "method": method, "episode": j, "p": p, **columns, "n_tokens": tokens})
        if policy == BASE:
            base = found
    return pd.DataFrame(rows)


def _accuracies(votes: pd.DataFrame, episodes: Sequence[int]) -> dict[tuple[str, int, int], tuple[pd.Series, float]]:
    """Of one policy, by (method, episode, p): accuracy by problem, and the mean tokens spent."""
    curves = [
        (
            problem,
            trace["n_tokens"].to_numpy(),
            np.array([_majority(row) for row in trace.itertuples()]),
            np.array([np.mean(row.answer_tokens) for row in trace.itertuples()]),
        )
        for problem, trace in _traces(votes)
    ]
    n_votes = curves[0][2].shape[1]
    problems = [problem for problem, *_ in curves]
    found = {}
    for j in episodes:
        at = [min(j, len(spent) - 1) for _, spent, _, _ in curves]
        for p in range(1, n_votes + 1):
            right = [majority[i, p - 1] for (_, _, majority, _), i in zip(curves, at, strict=True)]
            tokens = [spent[i] + p * answer[i] for (_, spent, _, answer), i in zip(curves, at, strict=True)]
            found["vote", j, p] = problem_means(right, problems), float(np.mean(tokens))
    direct = votes[votes["episode"] == -1]
    for k in range(1, n_votes + 1):
        right = [pass_at_k(rewards, k) for rewards in direct["rewards"]]
        tokens = np.mean([k * np.mean(spent) for spent in direct["answer_tokens"]])
        found["direct", 0, k] = problem_means(right, direct["problem_id"]), float(tokens)
    return found


def stopping_regret(
    votes: pd.DataFrame, episodes: Sequence[int], confidence: float, n_resamples: int, seed: int
) -> pd.DataFrame:
    """The paper's second regret over the first b episodes, for each b: a `stopping_regret` table.

    Mean over the traces that have an area, then over problems, with bootstrap intervals over problems; differences to
    the policy `base`, which comes first, are paired by problem. Raises ValueError if there are fewer than eight answers
    at a boundary.
    """
    rows, base = [], {}
    for policy, table in votes.groupby("policy", sort=False):
        found = trace_regrets(table, episodes)
        for b, regrets in found.items():
            if regrets.isna().all():
                continue
            values = regrets.groupby(level=0).mean()
            columns = measured("regret", values, base.get(b), confidence, n_resamples, seed)
            rows.append({"policy": policy, "episodes": b, **columns, "n_traces": int(regrets.notna().sum())})
            if policy == BASE:
                base[b] = values
    kinds = {"policy": str, "episodes": int, "regret": float, "ci_low": float, "ci_high": float, "n_traces": int}
    kinds |= dict.fromkeys(("difference", "difference_low", "difference_high"), float)
    return pd.DataFrame(rows, columns=list(kinds)).astype(kinds)


def trace_regrets(votes: pd.DataFrame, episodes: Sequence[int]) -> dict[int, pd.Series]:
    """Stopping regret of one policy's traces over the first b episodes, by b and problem; NaN without an area."""
    majorities = [(problem, np.array([_majority(row) for row in t.itertuples()])) for problem, t in _traces(votes)]
    problems = [problem for problem, _ in majorities]
    return {
        b: pd.Series([trace_stopping_regret(majority, b) for _, majority in majorities], problems, dtype=np.float64)
        for b in episodes
    }


def _traces(votes: pd.DataFrame) -> list[tuple[str, pd.DataFrame]]:
    """(problem, its rows in the order of episodes) of each trace."""
    by_trace = votes.sort_values("episode").groupby(["problem_id", "rollout_id"], sort=False)
    return [(str(problem), trace) for (problem, _), trace in by_trace]


def trace_stopping_regret(majority: np.ndarray, n_episodes: int) -> float | None:
    """Of one trace. majority: maj@k at its boundaries, (n_boundaries, at least 8); None without any area."""
    if majority.shape[1] < LEAST_VOTES:
        raise ValueError(f"stopping regret needs {LEAST_VOTES} answers at each boundary, got {majority.shape[1]}")
    optimal = missed = 0.0
    for before, after in zip(majority[:-1][:n_episodes], majority[1:][:n_episodes], strict=True):
        stop = np.array([before[0], before[1], before[3], (before[3] + before[7]) / 2])
        think = np.interp(_UNITS, [_UNITS[0], _UNITS[-1]], [before[0], after[0]])
        best = np.trapezoid(np.maximum(stop, think), _UNITS)
        optimal += best
        missed += best - np.trapezoid(think, _UNITS)
    return float(missed / optimal) if optimal > 0 else None


def pass_at_k(rewards: Sequence[float], k: int) -> float:
    """Probability that at least one of k of the n answers is right: 1 - C(n - c, k) / C(n, k) (arXiv 2107.03374)."""
    n, right = len(rewards), round(float(np.sum(rewards)))
    return 1.0 - comb(n - right, k) / comb(n, k)


def _majority(row) -> np.ndarray:
    answers = [answer or None for answer in row.answers]
    return majority_accuracy(answers, [float(reward) for reward in row.rewards])
