"""Token efficiency: sampled tokens until an arm is as accurate as the baseline becomes."""

from collections.abc import Sequence

import numpy as np
import pandas as pd

from mrt_pipeline.evaluation.bootstrap import Arm, Bootstrap

_SMOOTHED = 3  # validations in a running mean


def learning_curve(histories: Sequence[pd.DataFrame]) -> tuple[np.ndarray, np.ndarray]:
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
    """Sampled tokens until the mean learning curve reaches the final level of the baseline's, and the prover's tokens.

    `ratio` is the baseline's tokens over the arm's, with an interval over seeds; where the level is never reached the
    tokens are empty (NaN) and the ratio is 0.
    """
    trained = [arm for arm in arms if arm.histories]
    curves = {arm.name: learning_curve(arm.histories) for arm in trained}
    level = float(curves[baseline.name][1].mean(axis=0)[-1])
    levels = bootstrap.curves(baseline, curves[baseline.name][1])[:, -1]
    needed = {
        name: float(first_reached(grid, accuracy.mean(axis=0), level)) for name, (grid, accuracy) in curves.items()
    }
    drawn = {
        arm.name: first_reached(curves[arm.name][0], bootstrap.curves(arm, curves[arm.name][1]), levels)
        for arm in trained
    }
    rows = []
    for arm in trained:
        low, high = bootstrap.interval(drawn[baseline.name] / drawn[arm.name])
        rows.append(
            {
                "arm": arm.name,
                "baseline": baseline.name,
                "level": level,
                "tokens_to_level": needed[arm.name] if np.isfinite(needed[arm.name]) else np.nan,
                "ratio": needed[baseline.name] / needed[arm.name],
                "ci_low": low,
                "ci_high": high,
                "sampled_tokens": float(np.mean([h["train/sampled_tokens"].max() for h in arm.histories])),
                "prover_tokens": float(np.mean([h["train/prover_tokens"].max() for h in arm.histories])),
            }
        )
    return pd.DataFrame(rows)


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
