"""Token efficiency: tokens that an arm needs to be as accurate as the baseline, in learning and by voting.

Learning: sampled tokens until validation accuracy gets to the final level of the baseline; intervals are over seeds.

Voting: tokens for a problem that the arm's maj@k needs. maj@k is averaged over seeds and problems; between ks the curve
over tokens is straight. No arm needs less than one vote. In every draw of seeds and problems, level and curves are
those of the draw; which k is the baseline's best is not drawn again, and tokens are drawn without the correction for
few seeds, which could make them negative.
"""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd

from mrt_pipeline.evaluation.bootstrap import Arm, Bootstrap, arm_mean

_SMOOTHED = 3  # validations in a running mean
Curve = tuple[np.ndarray, np.ndarray]
"""Tokens and accuracy, (..., n) each."""


def learning_curve(histories: Sequence[pd.DataFrame]) -> Curve:
    """Sampled tokens and validation accuracy, (n,) and (n_seeds, n): a running mean of three validations.

    All seeds are interpolated linearly at the tokens of the first.
    """
    curves = []
    for history in histories:
        seen = history[history["validation/accuracy"].notna()]
        tokens = seen["train/sampled_tokens"].fillna(0).to_numpy()
        curves.append((tokens, seen["validation/accuracy"].rolling(_SMOOTHED, min_periods=1).mean().to_numpy()))
    grid = curves[0][0]
    return grid, np.stack([np.interp(grid, tokens, accuracy) for tokens, accuracy in curves])


def efficiency_table(arms: Sequence[Arm], baseline: Arm, bootstrap: Bootstrap) -> pd.DataFrame:
    """The table `comparison_efficiency`: tokens until the mean learning curve reaches the baseline's final level.

    Beside them what was sampled in all, and the prover's tokens.
    """
    trained = [arm for arm in arms if arm.histories]
    curves = {arm.name: learning_curve(arm.histories) for arm in trained}
    means = {name: (tokens, accuracy.mean(axis=0)) for name, (tokens, accuracy) in curves.items()}
    drawn = {arm.name: (curves[arm.name][0], bootstrap.curves(arm, curves[arm.name][1])) for arm in trained}
    table = pd.DataFrame(_tokens_to_level(means, drawn, baseline.name, -1, bootstrap))
    for kind in ("sampled_tokens", "prover_tokens"):
        table[kind] = [float(np.mean([h[f"train/{kind}"].max() for h in arm.histories])) for arm in trained]
    return table.rename(columns={"tokens": "tokens_to_level"})


def majority_table(arms: Sequence[Arm], bootstrap: Bootstrap) -> pd.DataFrame:
    """The table `comparison_majority`: arm, k, accuracy with its interval, tokens."""
    rows = [
        (arm.name, k, *bootstrap.mean(arm, arm.votes["accuracy", k]), arm_mean(arm.votes["tokens", k]))
        for arm in arms
        for k in _ks(arm)
    ]
    return pd.DataFrame(rows, columns=["arm", "k", "accuracy", "ci_low", "ci_high", "tokens"])


def voting_table(arms: Sequence[Arm], baseline: Arm, bootstrap: Bootstrap) -> pd.DataFrame:
    """The table `comparison_voting`: tokens until an arm is as accurate as the baseline at maj@1, and at its best k."""
    means, drawn = {}, {}
    for arm in arms:
        spent, right = ([arm.votes[quantity, k] for k in _ks(arm)] for quantity in ("tokens", "accuracy"))
        means[arm.name] = np.array([arm_mean(tokens) for tokens in spent]), np.array([arm_mean(each) for each in right])
        tokens = np.stack([bootstrap.draws(arm, tokens, widen=False) for tokens in spent], axis=-1)
        drawn[arm.name] = tokens, np.stack([bootstrap.draws(arm, each) for each in right], axis=-1)
    rows = [
        {**row, "baseline_k": k}
        for k in sorted({1, int(means[baseline.name][1].argmax()) + 1})
        for row in _tokens_to_level(means, drawn, baseline.name, k - 1, bootstrap)
    ]
    return pd.DataFrame(
        rows, columns=["arm", "baseline", "baseline_k", "level", "tokens", "ratio", "ci_low", "ci_high"]
    )


def _tokens_to_level(
    means: Mapping[str, Curve], drawn: Mapping[str, Curve], baseline: str, point: int, bootstrap: Bootstrap
) -> list[dict[str, Any]]:
    """A row an arm: `tokens` until its curve gets to the accuracy of the baseline's at this point, the `level`.

    means, drawn: the curves of each arm, (n,) and (n_resamples, n). `ratio` is the baseline's tokens over the arm's,
    with its interval. Where the level is never reached the tokens are empty (NaN) and the ratio is 0.
    """
    level, levels = float(means[baseline][1][point]), drawn[baseline][1][:, point]
    needed = {name: float(first_reached(*curve, level)) for name, curve in means.items()}
    draws = {name: first_reached(*curves, levels) for name, curves in drawn.items()}
    rows = []
    for name, tokens in needed.items():
        with np.errstate(invalid="ignore"):  # draws without any problem that has samples
            low, high = bootstrap.interval(draws[baseline] / draws[name])
        row = {"arm": name, "baseline": baseline, "level": level, "tokens": tokens if np.isfinite(tokens) else np.nan}
        rows.append({**row, "ratio": needed[baseline] / tokens, "ci_low": low, "ci_high": high})
    return rows


def first_reached(tokens: np.ndarray, accuracy: np.ndarray, level: float | np.ndarray) -> np.ndarray:
    """Tokens (...) at which the curves `accuracy` (..., n) first get to `level` (...), from more than 0 tokens on.

    tokens: (n,) or (..., n), ascending. Straight lines between the points; a level at or below the first point costs
    what the first point costs; inf if the level is never reached.
    """
    tokens = np.broadcast_to(tokens, accuracy.shape)
    level = np.asarray(level, dtype=np.float64)[..., None]
    reached = (accuracy >= level) & (tokens > 0)
    after = reached.argmax(axis=-1)[..., None]
    before = np.maximum(after - 1, 0)
    low, high, start, end = (np.take_along_axis(y, i, -1) for y in (accuracy, tokens) for i in (before, after))
    share = np.where(low < level, (level - low) / np.maximum(high - low, 1e-12), 1.0).clip(0.0, 1.0)
    return np.where(reached.any(axis=-1), (start + share * (end - start))[..., 0], np.inf)


def _ks(arm: Arm) -> list[int]:
    return sorted(k for quantity, k in arm.votes if quantity == "accuracy")
