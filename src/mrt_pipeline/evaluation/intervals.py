"""Bootstrap intervals: `Intervals` over the problems of one run, `Bootstrap` over seeds and problems of many.

All are percentile intervals. In a run, problems are drawn with replacement, the same for two policies whose difference
is measured. An arm is one configuration under several seeds, on one base or several; all arms are measured on the same
problems and bases. Their bootstrap is nested: problems are drawn, the same for all arms, and within each base so are
seeds. Arms with the same bases and seed numbers share the draw of seeds, which pairs them; other arms draw theirs
independently. The base policy has no seeds. Bases count equally, however many seeds each has. They are not drawn: two
or three are too few to say how others would differ, so that an interval is about these bases.

A bootstrap of n units is too narrow for small n: its variance lacks the factor n / (n - 1), and its quantiles are those
of the normal distribution where Student's t would be right (Hesterberg 2015, section 3.1, arXiv 1411.5279). Seeds are
few, so what a draw of seeds deviates by is multiplied by sqrt(n / (n - 1)) t / z. With one seed the interval knows of
problems only.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
import pandas as pd
from scipy import stats

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
        interval = stats.bootstrap(
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


@dataclass(frozen=True)
class Arm:
    """One configuration under several seeds, on one base or several: its runs.

    name: unique among the arms. seeds, bases: (s,) of each run; distinct as pairs; no bases: all runs have the same.
    histories: the `training_history` table of each run; none for the base.
    The others are means over the traces of each problem, float arrays (s, n_problems), of the same problems for all
    arms; NaN where a problem has no value.
    values: by (quantity, budget, forced); quantity is "regret" or "accuracy"; nothing is missing here.
    thinking_tokens: tokens spent where the model stops by itself, by (budget,).
    votes: maj@k and the tokens of k samples, by ("accuracy" or "tokens", k).
    sources: where regret comes from, by (difficulty, quantity, budget), see `regret_sources`.
    stopping: stopping regret, by (episodes,); nothing if answers were not forced at the boundaries.
    """

    name: str
    seeds: tuple[int, ...]
    values: Mapping[tuple[str, int, bool], np.ndarray]
    bases: tuple[str, ...] = ()
    thinking_tokens: Mapping[tuple[int], np.ndarray] = field(default_factory=dict)
    histories: tuple[pd.DataFrame, ...] = ()
    votes: Mapping[tuple[str, int], np.ndarray] = field(default_factory=dict)
    sources: Mapping[tuple[str, str, int], np.ndarray] = field(default_factory=dict)
    stopping: Mapping[tuple[int], np.ndarray] = field(default_factory=dict)

    @property
    def strata(self) -> list[np.ndarray]:
        """The places of the runs on each base."""
        bases = np.array(self.bases or [""] * len(self.seeds))
        return [np.flatnonzero(bases == base) for base in dict.fromkeys(bases.tolist())]

    @property
    def shares(self) -> np.ndarray:
        """(s,) what each run counts in a mean: bases count equally, and so do the runs of a base."""
        strata, shares = self.strata, np.empty(len(self.seeds))
        for runs in strata:
            shares[runs] = 1 / (len(strata) * len(runs))
        return shares

    def mean(self, values: np.ndarray) -> float:
        """Mean over runs of the mean over problems that have a value, of (s, n_problems); NaN if a run has none."""
        each = _means(np.full((1, values.shape[1]), 1 / values.shape[1]), values)[0]
        return float(self.shares @ each)


class Bootstrap:
    """n_resamples draws of mean values over seeds and problems, paired across these arms; intervals at `confidence`."""

    def __init__(self, arms: Sequence[Arm], n_resamples: int, confidence: float, seed: int):
        self.confidence = confidence
        rng = np.random.default_rng(seed)
        n_problems = next(iter(arms[0].values.values())).shape[1]
        self._problems = _draw(rng, n_resamples, n_problems)
        by_runs = {(arm.bases, arm.seeds): arm.strata for arm in arms}
        drawn = {runs: [_draw(rng, n_resamples, len(own)) for own in strata] for runs, strata in by_runs.items()}
        self._drawn, self._seeds = (
            {arm.name: _together(arm.strata, [change(own) for own in drawn[arm.bases, arm.seeds]]) for arm in arms}
            for change in (lambda own: own, lambda own: _widen(own, confidence))
        )

    def draws(self, arm: Arm, values: np.ndarray, widen: bool = True) -> np.ndarray:
        """Resampled means (n_resamples,) of one of the arm's arrays (s, n_problems).

        Each seed's mean is over the drawn problems that have a value; NaN if none of them has. widen: correct for the
        seeds being few, which may draw beyond the range of the values.
        """
        seeds = self._seeds if widen else self._drawn
        return (seeds[arm.name] * _means(self._problems, values)).sum(axis=1)

    def curves(self, arm: Arm, curves: np.ndarray) -> np.ndarray:
        """Resampled mean curves over seeds alone, (n_resamples, n), of one curve a seed (s, n)."""
        return self._seeds[arm.name] @ curves

    def interval(self, draws: np.ndarray) -> tuple[float, float]:
        """Percentile interval of the draws that have a value; NaN if none has."""
        return percentiles(draws, self.confidence)

    def mean(self, arm: Arm, values: np.ndarray) -> tuple[float, float, float]:
        """Mean of one of the arm's arrays, with its interval: (mean, low, high)."""
        return arm.mean(values), *self.interval(self.draws(arm, values))

    def difference(self, arm: Arm, values: np.ndarray, other: Arm, theirs: np.ndarray) -> tuple[float, float, float]:
        """Mean of an array of one arm minus that of another's, with its interval: (difference, low, high)."""
        drawn = self.draws(arm, values) - self.draws(other, theirs)
        return arm.mean(values) - other.mean(theirs), *self.interval(drawn)


def _means(shares: np.ndarray, values: np.ndarray) -> np.ndarray:
    """Means (n_resamples, s) by shares (n_resamples, n_problems) of values (s, n_problems), NaN left out."""
    known = ~np.isnan(values)
    weights = shares @ known.T.astype(np.float64)
    with np.errstate(invalid="ignore"):
        return shares @ np.where(known, values, 0.0).T / np.where(weights > 0, weights, np.nan)


def _draw(rng: np.random.Generator, n_resamples: int, n: int) -> np.ndarray:
    return rng.multinomial(n, np.full(n, 1 / n), size=n_resamples) / n


def _together(strata: Sequence[np.ndarray], drawn: Sequence[np.ndarray]) -> np.ndarray:
    """Draws (n_resamples, s) of all runs from those within each base, (n_resamples, runs of it)."""
    shares = np.empty((len(drawn[0]), sum(map(len, strata))))
    for runs, own in zip(strata, drawn, strict=True):
        shares[:, runs] = own / len(strata)
    return shares


def _widen(shares: np.ndarray, confidence: float) -> np.ndarray:
    """Correct draws (n_resamples, n) of n units for n being small; shares still sum to 1 but may be negative."""
    n = shares.shape[1]
    if n == 1:
        return shares
    quantile = (1 + confidence) / 2
    factor = np.sqrt(n / (n - 1)) * stats.t.ppf(quantile, n - 1) / stats.norm.ppf(quantile)
    return 1 / n + factor * (shares - 1 / n)
