"""The tables of a comparison: arms against each other, by means over seeds and problems; see `intervals`.

Token efficiency: tokens that an arm needs to be as accurate as the baseline. Learning: sampled tokens until validation
accuracy gets to the final level of the baseline; intervals are over seeds. Voting: tokens for a problem that the arm's
maj@k needs. maj@k is averaged over seeds and problems; between ks the curve over tokens is straight. No arm needs less
than one vote. In every draw of seeds and problems, level and curves are those of the draw; which k is the baseline's
best is not drawn again, and tokens are drawn without the correction for few seeds, which could make them negative.
"""

from collections.abc import Mapping, Sequence

import numpy as np
import pandas as pd

from mrt_pipeline.bars import bar
from mrt_pipeline.evaluation.intervals import DIFFERENCE, NOTHING, Arm, Bootstrap, arm_mean

_KEY = {"quantity": str, "budget": int, "forced": bool}
_INTERVAL = {"ci_low": float, "ci_high": float}
_ROUNDING = 1e-9  # smaller differences are not ones
_SMOOTHED = 3  # validations in a running mean
Curve = tuple[np.ndarray, np.ndarray]
"""Tokens and accuracy, (..., n) each."""


def comparison_table(arms: Sequence[Arm], bootstrap: Bootstrap) -> pd.DataFrame:
    """Mean and interval of every arm, quantity, budget and way of stopping."""
    table, spent = _table(arms, "values", _KEY, bootstrap), {arm.name: arm.thinking_tokens for arm in arms}
    where = zip(table["arm"], table["budget"], table["forced"], strict=True)
    return table.assign(thinking_tokens=[float(b) if forced else spent[arm][b] for arm, b, forced in where])


def difference_table(arms: Sequence[Arm], against: Sequence[Arm], bootstrap: Bootstrap) -> pd.DataFrame:
    """Arm minus each of `against`, paired by problem and, where the seeds are the same, by seed."""
    rows = [
        (arm.name, other.name, *key, *bootstrap.difference(arm, arm.values[key], other, other.values[key]))
        for other in against
        for arm in arms
        if arm.name != other.name
        for key in arm.values.keys() & other.values.keys()
    ]
    table = pd.DataFrame(rows, columns=["arm", "against", *_KEY, "difference", "ci_low", "ci_high"])
    table["excludes_zero"] = (table["ci_low"] > _ROUNDING) | (table["ci_high"] < -_ROUNDING)
    return table.sort_values(["against", "arm", "quantity", "forced", "budget"], ignore_index=True)


def sources_table(arms: Sequence[Arm], baseline: Arm, bootstrap: Bootstrap) -> pd.DataFrame:
    """Where regret comes from, in each arm and minus the baseline: a `comparison_sources` table."""
    return _table(arms, "sources", {"difficulty": str, "quantity": str, "budget": int}, bootstrap, baseline)


def stopping_table(arms: Sequence[Arm], baseline: Arm, bootstrap: Bootstrap) -> pd.DataFrame:
    """Stopping regret of each arm that has it, and minus the baseline's: a `comparison_stopping` table."""
    table = _table(arms, "stopping", {"episodes": int}, bootstrap, baseline)
    return table[table["mean"].notna()].reset_index(drop=True)


def _table(
    arms: Sequence[Arm], part: str, names: Mapping[str, type], bootstrap: Bootstrap, baseline: Arm | None = None
) -> pd.DataFrame:
    """A row for every array of the arms' field `part`: its key, under these names, and the mean with its interval.

    With a baseline also the paired difference to it; empty (NaN) where the baseline has no value.
    """
    kinds = {"arm": str, **names, "mean": float, **_INTERVAL, "n_seeds": int, "n_problems": int}
    if baseline:
        kinds |= {"baseline": str, **dict.fromkeys(DIFFERENCE, float)}
    rows = []
    for arm in bar(arms, desc="bootstrap", unit="arm"):
        for key, values in getattr(arm, part).items():
            row = [arm.name, *key, *bootstrap.mean(arm, values), len(arm.seeds), (~np.isnan(values)).any(axis=0).sum()]
            if baseline:
                theirs = getattr(baseline, part).get(key)
                found = NOTHING if theirs is None else bootstrap.difference(arm, values, baseline, theirs)
                row += [baseline.name, *found]
            rows.append(row)
    return pd.DataFrame(rows, columns=list(kinds)).astype(kinds)


def gain_table(arms: Sequence[Arm], base: Arm, baseline: Arm, bootstrap: Bootstrap) -> pd.DataFrame:
    """Gain over the base in units of the baseline's, (arm - base) / (baseline - base), in all that the arms share.

    Where the baseline is not distinguishably better than the base the ratio is undefined: NaN.
    """
    shared = [key for key in base.values if all(key in other.values for other in arms)]
    rows = []
    for arm in bar(arms, desc="bootstrap", unit="arm"):
        for key in shared if arm.name not in (base.name, baseline.name) else ():
            start = bootstrap.draws(base, base.values[key])
            gained = bootstrap.draws(baseline, baseline.values[key]) - start
            low, high = bootstrap.interval(gained)
            found = NOTHING
            if low > 0 if key[0] == "accuracy" else high < 0:
                ours, theirs, mean = (one.values[key].mean() for one in (arm, baseline, base))
                drawn = (bootstrap.draws(arm, arm.values[key]) - start) / gained
                found = float((ours - mean) / (theirs - mean)), *bootstrap.interval(drawn)
            rows.append((arm.name, baseline.name, *key, *found))
    kinds = {"arm": str, "baseline": str, **_KEY, "ratio": float, **_INTERVAL}
    return pd.DataFrame(rows, columns=list(kinds)).astype(kinds)


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
    means, drawn = {}, {}
    for arm in trained:
        tokens, accuracy = learning_curve(arm.histories)
        means[arm.name], drawn[arm.name] = (tokens, accuracy.mean(axis=0)), (tokens, bootstrap.curves(arm, accuracy))
    table = _tokens_to_level(means, drawn, baseline.name, -1, bootstrap)
    for kind in ("sampled_tokens", "prover_tokens"):
        table[kind] = [float(np.mean([h[f"train/{kind}"].max() for h in arm.histories])) for arm in trained]
    return table.rename(columns={"tokens": "tokens_to_level"})


def majority_table(arms: Sequence[Arm], bootstrap: Bootstrap) -> pd.DataFrame:
    """The table `comparison_majority`: arm, k, accuracy with its interval, tokens."""
    rows = [
        (arm.name, k, *bootstrap.mean(arm, right), arm_mean(spent)) for arm in arms for k, right, spent in _votes(arm)
    ]
    return pd.DataFrame(rows, columns=["arm", "k", "accuracy", "ci_low", "ci_high", "tokens"])


def voting_table(arms: Sequence[Arm], baseline: Arm, bootstrap: Bootstrap) -> pd.DataFrame:
    """The table `comparison_voting`: tokens until an arm is as accurate as the baseline at maj@1, and at its best k."""
    means, drawn = {}, {}
    for arm in arms:
        _, right, spent = zip(*_votes(arm), strict=True)
        means[arm.name] = np.array([*map(arm_mean, spent)]), np.array([*map(arm_mean, right)])
        tokens = np.stack([bootstrap.draws(arm, each, widen=False) for each in spent], axis=-1)
        drawn[arm.name] = tokens, np.stack([bootstrap.draws(arm, each) for each in right], axis=-1)
    best = int(means[baseline.name][1].argmax()) + 1
    tables = []
    for k in sorted({1, best}):
        tables.append(_tokens_to_level(means, drawn, baseline.name, k - 1, bootstrap))
        tables[-1].insert(2, "baseline_k", k)
    return pd.concat(tables, ignore_index=True)


def _votes(arm: Arm) -> list[tuple[int, np.ndarray, np.ndarray]]:
    """(k, accuracy of maj@k, tokens of k samples), k ascending."""
    ks = sorted(k for quantity, k in arm.votes if quantity == "accuracy")
    return [(k, arm.votes["accuracy", k], arm.votes["tokens", k]) for k in ks]


def _tokens_to_level(
    means: Mapping[str, Curve], drawn: Mapping[str, Curve], baseline: str, point: int, bootstrap: Bootstrap
) -> pd.DataFrame:
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
            interval = bootstrap.interval(draws[baseline] / draws[name])
        reached = tokens if np.isfinite(tokens) else np.nan
        rows.append((name, baseline, level, reached, needed[baseline] / tokens, *interval))
    return pd.DataFrame(rows, columns=["arm", "baseline", "level", "tokens", "ratio", "ci_low", "ci_high"])


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
