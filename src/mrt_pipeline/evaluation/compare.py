"""Arms against each other: means over seeds and problems, paired differences, gain ratios, token efficiency.

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
from dataclasses import dataclass

import numpy as np
import pandas as pd
from scipy import stats

from mrt_pipeline.evaluation.evaluate import reading, trace_curves
from mrt_pipeline.evaluation.intervals import problem_means
from mrt_pipeline.mrt.regret import normalized_regret

BASE = "base"
_SMOOTHED = 3  # validations in a running mean


@dataclass(frozen=True)
class Arm:
    """One configuration under several seeds.

    name: unique among the arms. seeds: (s,) as configured, distinct.
    values: for each (quantity, budget, forced) a float array (s, n_problems); quantity is "regret" or "accuracy".
    thinking_tokens: for each (budget, forced) the mean number of thinking tokens spent.
    histories: for each seed its `training_history` table; none for the base policy.
    votes: for each seed its maj@k, see `majority_by_problem`.
    """

    name: str
    seeds: tuple[int, ...]
    values: Mapping[tuple[str, int, bool], np.ndarray]
    thinking_tokens: Mapping[tuple[int, bool], float]
    histories: tuple[pd.DataFrame, ...] = ()
    votes: tuple[pd.DataFrame, ...] = ()


def measure(
    episodes: pd.DataFrame, anytime: pd.DataFrame, budgets: Sequence[int]
) -> dict[tuple[str, int, bool], pd.Series]:
    """Regret and accuracy of one policy on every problem, by (quantity, budget, forced); indexed by problem, sorted."""
    found: dict[tuple[str, int, bool], pd.Series] = {}
    for forced in (False, True):
        curves = trace_curves(reading(episodes, forced))
        problems = [problem for problem, _, _ in curves]
        for budget in budgets:
            regrets = [normalized_regret(x, y, budget) for _, x, y in curves]
            found["regret", budget, forced] = problem_means(regrets, problems)
            points = anytime[(anytime["n_tokens"] == budget) & (anytime["forced"] == forced)]
            if len(points):
                found["accuracy", budget, forced] = problem_means(points["success"], points["problem_id"])
    return found


class Bootstrap:
    """Draws of mean values over seeds and problems, paired across arms; see the module's docstring.

    arms: the first one may be the base. n_resamples draws at level `confidence`.
    """

    def __init__(self, arms: Sequence[Arm], n_resamples: int, confidence: float, seed: int):
        self.confidence = confidence
        rng = np.random.default_rng(seed)
        n_problems = next(iter(arms[0].values.values())).shape[1]
        self._problems = _draw(rng, n_resamples, n_problems)
        by_seeds = {
            seeds: _widen(_draw(rng, n_resamples, len(seeds)), confidence)
            for seeds in dict.fromkeys(arm.seeds for arm in arms)
        }
        self._seeds = {arm.name: by_seeds[arm.seeds] for arm in arms}

    def draws(self, arm: Arm, key: tuple[str, int, bool]) -> np.ndarray:
        """Resampled means, (n_resamples,)."""
        return np.einsum("bs,sp,bp->b", self._seeds[arm.name], arm.values[key], self._problems, optimize=True)

    def curves(self, arm: Arm, curves: np.ndarray) -> np.ndarray:
        """Resampled mean curves over seeds alone, (n_resamples, n), of one curve a seed (s, n)."""
        return self._seeds[arm.name] @ curves

    def interval(self, draws: np.ndarray) -> tuple[float, float]:
        """Percentile interval of draws."""
        tail = (1 - self.confidence) / 2
        low, high = np.quantile(draws, [tail, 1 - tail])
        return float(low), float(high)


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


def comparison_table(arms: Sequence[Arm], bootstrap: Bootstrap) -> pd.DataFrame:
    """Mean and interval of every arm, quantity, budget and way of stopping."""
    rows = []
    for arm in arms:
        for key, values in arm.values.items():
            low, high = bootstrap.interval(bootstrap.draws(arm, key))
            quantity, budget, forced = key
            rows.append(
                {
                    "arm": arm.name,
                    "quantity": quantity,
                    "budget": budget,
                    "forced": forced,
                    "mean": float(values.mean()),
                    "ci_low": low,
                    "ci_high": high,
                    "thinking_tokens": arm.thinking_tokens[budget, forced],
                    "n_seeds": len(arm.seeds),
                    "n_problems": values.shape[1],
                }
            )
    return pd.DataFrame(rows)


def difference_table(arms: Sequence[Arm], against: Sequence[Arm], bootstrap: Bootstrap) -> pd.DataFrame:
    """Arm minus each of `against`, paired by problem and, where the seeds are the same, by seed."""
    rows = []
    for other in against:
        for arm in arms:
            for key in arm.values.keys() & other.values.keys() if arm.name != other.name else ():
                low, high = bootstrap.interval(bootstrap.draws(arm, key) - bootstrap.draws(other, key))
                rows.append(
                    {
                        "arm": arm.name,
                        "against": other.name,
                        "quantity": key[0],
                        "budget": key[1],
                        "forced": key[2],
                        "difference": float(arm.values[key].mean() - other.values[key].mean()),
                        "ci_low": low,
                        "ci_high": high,
                        "excludes_zero": low > 0 or high < 0,
                    }
                )
    table = pd.DataFrame(rows)
    return table.sort_values(["against", "arm", "quantity", "forced", "budget"], ignore_index=True)


def gain_table(
    arms: Sequence[Arm], base: Arm, baseline: Arm, keys: Sequence[tuple[str, int, bool]], bootstrap: Bootstrap
) -> pd.DataFrame:
    """Gain over the base in units of the baseline's: (arm - base) / (baseline - base), for each of `keys`.

    Where the baseline is not distinguishably better than the base the ratio is undefined: NaN.
    """
    rows = []
    for arm in arms:
        for key in keys if arm.name not in (base.name, baseline.name) else ():
            start = bootstrap.draws(base, key)
            theirs = bootstrap.draws(baseline, key) - start
            low, high = bootstrap.interval(theirs)
            ratio = ci_low = ci_high = np.nan
            improved = low > 0 if key[0] == "accuracy" else high < 0
            if improved:
                mean = base.values[key].mean()
                ratio = float((arm.values[key].mean() - mean) / (baseline.values[key].mean() - mean))
                ci_low, ci_high = bootstrap.interval((bootstrap.draws(arm, key) - start) / theirs)
            rows.append(
                {
                    "arm": arm.name,
                    "baseline": baseline.name,
                    "quantity": key[0],
                    "budget": key[1],
                    "forced": key[2],
                    "ratio": ratio,
                    "ci_low": ci_low,
                    "ci_high": ci_high,
                }
            )
    return pd.DataFrame(rows)


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
        name: float(_first_reached(grid, accuracy.mean(axis=0), level)) for name, (grid, accuracy) in curves.items()
    }
    drawn = {
        arm.name: _first_reached(curves[arm.name][0], bootstrap.curves(arm, curves[arm.name][1]), levels)
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


def _first_reached(tokens: np.ndarray, accuracy: np.ndarray, level: float | np.ndarray) -> np.ndarray:
    """Tokens (...) at which the curves `accuracy` (..., n) first get to `level`, after training began; inf if never.

    Straight lines between the points of the grid `tokens` (n,).
    """
    level = np.asarray(level, dtype=np.float64)
    level = level[..., None] if level.ndim < accuracy.ndim else level
    reached = (accuracy >= level) & (tokens > 0)
    after = reached.argmax(axis=-1)[..., None]
    before = np.maximum(after - 1, 0)
    low, high = (np.take_along_axis(accuracy, i, axis=-1) for i in (before, after))
    rise = np.maximum(high - low, 1e-12)
    share = np.where(low < level, (level - low) / rise, 1.0).clip(0.0, 1.0)
    crossing = tokens[before] + share * (tokens[after] - tokens[before])
    return np.where(reached.any(axis=-1), crossing[..., 0], np.inf)
