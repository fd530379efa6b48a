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

from mrt_pipeline.evaluation.intervals import mean_interval, problem_means
from mrt_pipeline.evaluation.majority import majority_accuracy

_UNITS = np.array([1.0, 2.0, 4.0, 6.0])
LEAST_VOTES = 8
"""Answers at a boundary that stopping regret needs."""


def vote_accuracy(votes: pd.DataFrame, episodes: Sequence[int]) -> pd.DataFrame:
    """[maj@p]_j and pass@k of direct answers, by policy: a `stop_and_vote` table.

    episodes: the js; a trace with fewer episodes votes where it ended. `n_tokens` is what is spent on average, thinking
    and p answers. Rows with `method` direct have episode 0 and p = k.
    """
    rows = []
    for policy, table in votes.groupby("policy", sort=False):
        curves = [
            (
                str(trace["problem_id"].iloc[0]),
                trace["n_tokens"].to_numpy(),
                np.array([_majority(row) for row in trace.itertuples()]),
                np.array([np.mean(row.answer_tokens) for row in trace.itertuples()]),
            )
            for _, trace in table.sort_values("episode").groupby(["problem_id", "rollout_id"], sort=False)
        ]
        n_votes = curves[0][2].shape[1]
        problems = [problem for problem, *_ in curves]
        for j in episodes:
            at = [min(j, len(spent) - 1) for _, spent, _, _ in curves]
            for p in range(1, n_votes + 1):
                accuracy = problem_means([curve[2][i, p - 1] for curve, i in zip(curves, at, strict=True)], problems)
                tokens = [curve[1][i] + p * curve[3][i] for curve, i in zip(curves, at, strict=True)]
                rows.append(_row(policy, "vote", j, p, accuracy.mean(), np.mean(tokens)))
        direct = table[table["episode"] == -1]
        for k in range(1, n_votes + 1):
            found = problem_means([pass_at_k(r, k) for r in direct["rewards"]], direct["problem_id"])
            tokens = np.mean([k * np.mean(spent) for spent in direct["answer_tokens"]])
            rows.append(_row(policy, "direct", 0, k, found.mean(), tokens))
    return pd.DataFrame(rows)


def stopping_regret(
    votes: pd.DataFrame, episodes: Sequence[int], confidence: float, n_resamples: int, seed: int
) -> pd.DataFrame:
    """The paper's second regret over the first b episodes, for each b: a `stopping_regret` table.

    Mean over the traces that have an area, then over problems, with bootstrap intervals over problems. Raises
    ValueError if there are fewer than eight answers at a boundary.
    """
    rows = []
    for policy, table in votes.groupby("policy", sort=False):
        traces = [
            (str(trace["problem_id"].iloc[0]), np.array([_majority(row) for row in trace.itertuples()]))
            for _, trace in table.sort_values("episode").groupby(["problem_id", "rollout_id"], sort=False)
        ]
        for b in episodes:
            found = [(problem, trace_stopping_regret(majority, b)) for problem, majority in traces]
            found = [(problem, regret) for problem, regret in found if regret is not None]
            if not found:
                continue
            means = problem_means([regret for _, regret in found], [problem for problem, _ in found])
            regret, low, high = mean_interval(means, confidence, n_resamples, seed)
            rows.append(
                {
                    "policy": policy,
                    "episodes": b,
                    "regret": regret,
                    "ci_low": low,
                    "ci_high": high,
                    "n_traces": len(found),
                }
            )
    columns = {"policy": str, "episodes": int, "regret": float, "ci_low": float, "ci_high": float, "n_traces": int}
    return pd.DataFrame(rows, columns=list(columns)).astype(columns)


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


def _row(policy, method: str, episode: int, p: int, accuracy: float, tokens: float) -> dict:
    return {
        "policy": policy,
        "method": method,
        "episode": episode,
        "p": p,
        "accuracy": float(accuracy),
        "n_tokens": float(tokens),
    }
