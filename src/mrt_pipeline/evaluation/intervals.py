"""Bootstrap intervals over problems."""

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
