"""Token efficiency by voting: tokens for a problem that an arm's maj@k needs to be as accurate as the baseline's.

maj@k is averaged over seeds and problems; between ks the curve over tokens is straight. No arm needs less than one
vote. In every draw of seeds and problems, level and curves are those of the draw; which k is the baseline's best is not
drawn again, and tokens are drawn without the correction for few seeds, which could make them negative.
"""

from collections.abc import Callable, Sequence
from functools import partial

import numpy as np
import pandas as pd

from mrt_pipeline.evaluation.bootstrap import Arm, Bootstrap, arm_mean
from mrt_pipeline.evaluation.efficiency import first_reached


def majority_table(arms: Sequence[Arm], bootstrap: Bootstrap) -> pd.DataFrame:
    """The table `comparison_majority`: arm, k, accuracy with its interval, tokens."""
    rows = []
    for arm in arms:
        for k in _ks(arm):
            accuracy = arm.votes["accuracy", k]
            low, high = bootstrap.interval(bootstrap.draws(arm, accuracy))
            rows.append(
                {
                    "arm": arm.name,
                    "k": k,
                    "accuracy": arm_mean(accuracy),
                    "ci_low": low,
                    "ci_high": high,
                    "tokens": arm_mean(arm.votes["tokens", k]),
                }
            )
    return pd.DataFrame(rows)


def voting_table(arms: Sequence[Arm], baseline: Arm, bootstrap: Bootstrap) -> pd.DataFrame:
    """The table `comparison_voting`: tokens until each arm is as accurate as the baseline at maj@1, and at its best k.

    `ratio` is the baseline's tokens over the arm's, with its interval. Where the level is never reached the tokens are
    empty (NaN) and the ratio is 0.
    """
    means = {arm.name: _curves(arm, arm_mean, arm_mean) for arm in arms}
    draws = {
        arm.name: _curves(arm, partial(bootstrap.draws, arm, widen=False), partial(bootstrap.draws, arm))
        for arm in arms
    }
    accuracy, accuracies = means[baseline.name][1], draws[baseline.name][1]
    rows = []
    for k in sorted({1, int(accuracy.argmax()) + 1}):
        level = float(accuracy[k - 1])
        needed = {name: float(first_reached(*curve, level)) for name, curve in means.items()}
        drawn = {name: first_reached(*curves, accuracies[:, k - 1]) for name, curves in draws.items()}
        for arm in arms:
            with np.errstate(invalid="ignore"):  # draws without any problem that has samples
                low, high = bootstrap.interval(drawn[baseline.name] / drawn[arm.name])
            rows.append(
                {
                    "arm": arm.name,
                    "baseline": baseline.name,
                    "baseline_k": k,
                    "level": level,
                    "tokens": needed[arm.name] if np.isfinite(needed[arm.name]) else np.nan,
                    "ratio": needed[baseline.name] / needed[arm.name],
                    "ci_low": low,
                    "ci_high": high,
                }
            )
    return pd.DataFrame(rows)


def _curves(arm: Arm, tokens: Callable, accuracy: Callable) -> tuple[np.ndarray, np.ndarray]:
    """What the two functions make of the arm's arrays, for every k: (..., n_ks) each."""
    return tuple(
        np.stack([reduce(arm.votes[quantity, k]) for k in _ks(arm)], axis=-1)
        for quantity, reduce in (("tokens", tokens), ("accuracy", accuracy))
    )


def _ks(arm: Arm) -> list[int]:
    return sorted(k for quantity, k in arm.votes if quantity == "accuracy")
