"""Bootstrap intervals over problems, of one policy and of the difference between two."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd
from scipy.stats import bootstrap

from mrt_pipeline.bars import bar

BASE = "base"
"""The policy, and arm, that the others are compared with."""
DIFFERENCE = ("difference", "difference_low", "difference_high")
NOTHING = (np.nan, np.nan, np.nan)


def problem_means(values: Sequence[float] | pd.Series, problem_ids: Sequence[str] | pd.Series) -> pd.Series:
    """Mean over the traces of each problem, indexed by problem, sorted. Problems are the unit that is resampled."""
    return pd.Series(np.asarray(values, dtype=np.float64), index=list(problem_ids)).groupby(level=0).mean().sort_index()


def percentiles(draws: np.ndarray, confidence: float) -> tuple[float, float]:
    """Percentile interval of the draws (n,) that have a value; NaN if none has."""
    draws = draws[~np.isnan(draws)]
    if not len(draws):
        return np.nan, np.nan
    tail = (1 - confidence) / 2
    low, high = np.quantile(draws, [tail, 1 - tail])
    return float(low), float(high)


@dataclass(frozen=True)
class Intervals:
    """Percentile bootstrap intervals at level `confidence`, each of n_resamples draws of problems from the seed."""

    confidence: float
    n_resamples: int
    seed: int

    def mean(self, values: Sequence[float] | pd.Series) -> tuple[float, float, float]:
        """Mean of the values that are not NaN, with its interval: (mean, low, high); NaN if there are none.

        With one value, or if all are equal, the interval is the mean itself.
        """
        known = np.asarray(values, dtype=np.float64)
        known = known[~np.isnan(known)]
        if not len(known):
            return NOTHING
        mean = float(known.mean())
        if np.ptp(known) == 0:
            return mean, mean, mean
        interval = bootstrap(
            (known,),
            np.mean,
            confidence_level=self.confidence,
            n_resamples=self.n_resamples,
            method="percentile",
            rng=np.random.default_rng(self.seed),
        ).confidence_interval
        return mean, float(interval.low), float(interval.high)

    def difference(self, values: pd.Series, base: pd.Series) -> tuple[float, float, float]:
        """Mean of `values` minus mean of `base`, with its interval: (difference, low, high).

        values, base: by problem, NaN where a problem has no value. Paired: both means are of the same drawn problems.
        Draws in which one of them has no value are left out; without any value at all the three are NaN.
        """
        both = pd.concat([values, base], axis=1).to_numpy(dtype=np.float64)
        if np.isnan(both).all(axis=0).any():
            return NOTHING
        drawn = both[np.random.default_rng(self.seed).integers(0, len(both), (self.n_resamples, len(both)))]
        known = ~np.isnan(drawn)
        with np.errstate(invalid="ignore"):
            means = np.where(known, drawn, 0.0).sum(axis=1) / known.sum(axis=1)
        mean = np.nanmean(both, axis=0)
        return float(mean[0] - mean[1]), *percentiles(means[:, 0] - means[:, 1], self.confidence)

    def table(self, name: str, columns: Sequence[str], values: Mapping[tuple, pd.Series]) -> pd.DataFrame:
        """A row for each of `values`: its key in `columns`, the mean as `name`, and the difference to the base.

        columns: `policy`, then those that say what was measured. values: by problem, NaN where a problem has no value.
        Mean and difference have their intervals beside them. The difference is to the values of the policy `base` under
        the same key; empty (NaN) for the base itself, and where it has none.
        """
        rows = []
        for (policy, *place), ours in bar(values.items(), total=len(values), desc="bootstrap", unit="interval"):
            base = values.get((BASE, *place)) if policy != BASE else None
            rows.append((policy, *place, *self.mean(ours), *(NOTHING if base is None else self.difference(ours, base))))
        numbers = [name, "ci_low", "ci_high", *DIFFERENCE]
        return pd.DataFrame(rows, columns=[*columns, *numbers]).astype(dict.fromkeys(numbers, float))
