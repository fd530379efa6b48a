"""Token efficiency by voting: tokens for a problem that an arm's maj@k needs to be as accurate as the baseline's.

maj@k is averaged over seeds and problems; between ks the curve over tokens is straight. No arm needs less than one
vote. Point estimates without intervals.
"""

from collections.abc import Sequence

import numpy as np
import pandas as pd

from mrt_pipeline.evaluation.compare import Arm


def majority_table(arms: Sequence[Arm]) -> pd.DataFrame:
    """The table `comparison_majority`: arm, k, accuracy, tokens; for the ks that all seeds have."""
    parts = []
    for arm in arms:
        votes = pd.concat(arm.votes)
        means = votes.groupby("k", as_index=False)[["accuracy", "tokens"]].mean()
        shared = min(table["k"].max() for table in arm.votes)
        parts.append(means[means["k"] <= shared].assign(arm=arm.name))
    return pd.concat(parts, ignore_index=True)[["arm", "k", "accuracy", "tokens"]]


def voting_table(majority: pd.DataFrame, baseline: str) -> pd.DataFrame:
    """The table `comparison_voting`: tokens until each arm is as accurate as the baseline at maj@1, and at its best k.

    `ratio` is the baseline's tokens over the arm's; both empty (NaN) where the level is never reached.
    """
    curves = {
        str(arm): (rows["tokens"].to_numpy(), rows["accuracy"].to_numpy())
        for arm, rows in majority.sort_values("k").groupby("arm", sort=False)
    }
    accuracy = curves[baseline][1]
    rows = []
    for k in sorted({1, int(accuracy.argmax()) + 1}):
        level = float(accuracy[k - 1])
        needed = {arm: tokens_to_reach(level, *curve) for arm, curve in curves.items()}
        for arm, tokens in needed.items():
            rows.append(
                {
                    "arm": arm,
                    "baseline": baseline,
                    "baseline_k": k,
                    "level": level,
                    "tokens": tokens,
                    "ratio": needed[baseline] / tokens,
                }
            )
    return pd.DataFrame(rows)


def tokens_to_reach(level: float, tokens: np.ndarray, accuracy: np.ndarray) -> float:
    """Tokens at which the curve through the points first gets to `level`; NaN if it never does.

    tokens: ascending, (n,). A level at or below the first point costs what the first point costs.
    """
    reached = np.flatnonzero(accuracy >= level)
    if not len(reached):
        return float("nan")
    i = int(reached[0])
    if i == 0:
        return float(tokens[0])
    share = (level - accuracy[i - 1]) / (accuracy[i] - accuracy[i - 1])
    return float(tokens[i - 1] + share * (tokens[i] - tokens[i - 1]))
