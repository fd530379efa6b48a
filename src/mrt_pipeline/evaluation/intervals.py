"""Bootstrap intervals over problems, of one policy and of the difference between two."""

from collections.abc import Sequence

import numpy as np
import pandas as pd
from scipy.stats import bootstrap


def problem_means(values: Sequence[float], problem_ids: Sequence[str]) -> pd.Series:
    """Mean over the traces of each problem, indexed by problem, sorted. Problems are the unit that is resampled."""
    return pd.Series(np.asarray(values, dtype=np.float64), index=list(problem_ids)).groupby(level=0).mean().sort_index()


def mean_interval(
    values: Sequence[float], confidence: float, n_resamples: int, seed: int
) -> tuple[float, float, float]:
    """Mean of the values, and the percentile bootstrap interval of it: (mean, low, high).

    With fewer than two values, or if all are equal, the interval is the mean itself.
    """
    values = np.asarray(values, dtype=np.float64)
    mean = float(values.mean())
    if len(values) < 2 or np.ptp(values) == 0:
        return mean, mean, mean
    interval = bootstrap(
        (values,),
        np.mean,
        confidence_level=confidence,
        n_resamples=n_resamples,
        method="percentile",
        rng=np.random.default_rng(seed),
        vectorized=True,
    ).confidence_interval
    return mean, float(interval.low), float(interval.high)


def difference_interval(
    values: pd.Series, base: pd.Series, confidence: float, n_resamples: int, seed: int
) -> tuple[float, float, float]:
    """Mean of `values` minus mean of `base`, and its percentile bootstrap interval: (difference, low, high).

    values, base: by problem, NaN where a problem has no value. Paired: both means are of the same drawn problems.
    Draws in which one of them has no value are left out; without any value at all the three are NaN.
    """
    both = pd.concat([values, base], axis=1).to_numpy(dtype=np.float64)
    if np.isnan(both).all(axis=0).any():
        return np.nan, np.nan, np.nan
    drawn = both[np.random.default_rng(seed).integers(0, len(both), (n_resamples, len(both)))]
    known = ~np.isnan(drawn)
    counts = known.sum(axis=1)
    sums = np.where(known, drawn, 0.0).sum(axis=1)
    means = (sums / np.maximum(counts, 1))[(counts > 0).all(axis=1)]
    tail = (1 - confidence) / 2
    low, high = np.quantile(means[:, 0] - means[:, 1], [tail, 1 - tail])
    mean = np.nanmean(both, axis=0)
    return float(mean[0] - mean[1]), float(low), float(high)


def measured(
    name: str, values: pd.Series, base: pd.Series | None, confidence: float, n_resamples: int, seed: int
) -> dict[str, float]:
    """Columns of a table: the mean as `name`, `ci_low`, `ci_high`, and the `difference` to the base with its interval.

    values, base: by problem, NaN where a problem has no value. base None, for the base policy itself: no difference.
    """
    known = values.dropna()
    nothing = (np.nan, np.nan, np.nan)
    mean, low, high = mean_interval(known, confidence, n_resamples, seed) if len(known) else nothing
    paired = nothing if base is None else difference_interval(values, base, confidence, n_resamples, seed)
    difference = dict(zip(("difference", "difference_low", "difference_high"), paired, strict=True))
    return {name: mean, "ci_low": low, "ci_high": high, **difference}
