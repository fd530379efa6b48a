"""Nested bootstrap over seeds and problems.

An arm is one configuration under several seeds. All arms are measured on the same problems. Intervals are percentile
intervals of a nested bootstrap: problems are drawn with replacement, the same for all arms, and so are seeds. Arms with
the same seed numbers share the draw of seeds, which pairs them; other arms draw theirs independently. The base policy
has no seeds.

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

from mrt_pipeline.evaluation.intervals import percentiles


@dataclass(frozen=True)
class Arm:
    """One configuration under several seeds.

    name: unique among the arms. seeds: (s,) as configured, distinct. The next four are means over the traces of each
    problem, float arrays (s, n_problems), of the same problems for all arms; NaN where a problem has no value.
    values: by (quantity, budget, forced); quantity is "regret" or "accuracy"; nothing is missing here.
    sources: where regret comes from, by (difficulty, quantity, budget), see `regret_sources`.
    stopping: stopping regret, by (episodes,); nothing if answers were not forced at the boundaries.
    votes: maj@k and the tokens of k samples, by ("accuracy" or "tokens", k).
    thinking_tokens: for each budget the mean number of thinking tokens spent where the model stops by itself.
    histories: for each seed its `training_history` table; none for the base policy.
    """

    name: str
    seeds: tuple[int, ...]
    values: Mapping[tuple[str, int, bool], np.ndarray]
    thinking_tokens: Mapping[int, float]
    histories: tuple[pd.DataFrame, ...] = ()
    votes: Mapping[tuple[str, int], np.ndarray] = field(default_factory=dict)
    sources: Mapping[tuple[str, str, int], np.ndarray] = field(default_factory=dict)
    stopping: Mapping[tuple[int], np.ndarray] = field(default_factory=dict)


class Bootstrap:
    """Draws of mean values over seeds and problems, paired across arms; see the module's docstring.

    arms: all that are drawn for. n_resamples draws at level `confidence`.
    """

    def __init__(self, arms: Sequence[Arm], n_resamples: int, confidence: float, seed: int):
        self.confidence = confidence
        rng = np.random.default_rng(seed)
        n_problems = next(iter(arms[0].values.values())).shape[1]
        self._problems = _draw(rng, n_resamples, n_problems)
        by_seeds = {seeds: _draw(rng, n_resamples, len(seeds)) for seeds in dict.fromkeys(arm.seeds for arm in arms)}
        self._drawn = {arm.name: by_seeds[arm.seeds] for arm in arms}
        self._seeds = {name: _widen(drawn, confidence) for name, drawn in self._drawn.items()}

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
        return arm_mean(values), *self.interval(self.draws(arm, values))

    def difference(self, arm: Arm, values: np.ndarray, other: Arm, theirs: np.ndarray) -> tuple[float, float, float]:
        """Mean of an array of one arm minus that of another's, with its interval: (difference, low, high)."""
        low, high = self.interval(self.draws(arm, values) - self.draws(other, theirs))
        return arm_mean(values) - arm_mean(theirs), low, high


def arm_mean(values: np.ndarray) -> float:
    """Mean over seeds of the mean over problems that have a value, of (s, n_problems); NaN if a seed has none."""
    n_problems = values.shape[1]
    return float(_means(np.full((1, n_problems), 1 / n_problems), values).mean())


def _means(shares: np.ndarray, values: np.ndarray) -> np.ndarray:
    """Means (n_resamples, s) by shares (n_resamples, n_problems) of values (s, n_problems), NaN left out."""
    known = ~np.isnan(values)
    weights = shares @ known.T.astype(np.float64)
    with np.errstate(invalid="ignore"):
        return shares @ np.where(known, values, 0.0).T / np.where(weights > 0, weights, np.nan)


def _draw(rng: np.random.Generator, n_resamples: int, n: int) -> np.ndarray:
    return rng.multinomial(n, np.full(n, 1 / n), size=n_resamples) / n


def _widen(shares: np.ndarray, confidence: float) -> np.ndarray:
    """Correct draws (n_resamples, n) of n units for n being small; shares still sum to 1 but may be negative."""
    n = shares.shape[1]
    if n == 1:
        return shares
    quantile = (1 + confidence) / 2
    factor = np.sqrt(n / (n - 1)) * stats.t.ppf(quantile, n - 1) / stats.norm.ppf(quantile)
    return 1 / n + factor * (shares - 1 / n)
