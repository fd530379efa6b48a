"""The tables of a comparison: arms against each other, by means over bases, seeds and problems; see `intervals`.

Token efficiency: tokens that an arm needs to be as accurate as the baseline. Learning: sampled tokens until validation
accuracy gets to the lower of the two final levels, that of the arm and that of the baseline; intervals are over seeds.
Voting: tokens for a problem until maj@k is as accurate as the baseline's. maj@k is averaged over seeds and problems;
between ks the curve over tokens is straight. No arm needs less than one vote. In every draw of seeds and problems,
level and curves are those of the draw; which k is the baseline's best is not drawn again, and tokens are drawn without
the correction for few seeds, which could make them negative.

A ratio of gains has Fieller's interval (1954): all ratios that a test of `gain = ratio * the baseline's gain` does not
reject, with the variances of the bootstrap. It is finite only where the baseline's gain is distinguishable from 0.
"""

from collections.abc import Mapping, Sequence

import numpy as np
import pandas as pd
from scipy import stats

from mrt_pipeline.bars import bar
from mrt_pipeline.evaluation.intervals import DIFFERENCE, NOTHING, Arm, Bootstrap

_KEY = {"quantity": str, "budget": int, "forced": bool}
_INTERVAL = {"ci_low": float, "ci_high": float}
_ROUNDING = 1e-9  # smaller differences are not ones
_SMOOTHED = 3  # validations in a running mean
Curve = tuple[np.ndarray, np.ndarray]
"""Tokens and accuracy, (..., n) each."""


def comparison_table(arms: Sequence[Arm], bootstrap: Bootstrap) -> pd.DataFrame:
    """Mean and interval of every arm, quantity, budget and way of stopping."""
    table, by_name = _table(arms, "values", _KEY, bootstrap), {arm.name: arm for arm in arms}
    spent = [
        float(budget) if forced else by_name[name].mean(by_name[name].thinking_tokens[budget,])
        for name, budget, forced in zip(table["arm"], table["budget"], table["forced"], strict=True)
    ]
    bases = [len(by_name[name].strata) for name in table["arm"]]
    return table.assign(thinking_tokens=spent, n_bases=bases)


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

    The ratio is undefined, NaN, where the baseline is not distinguishably better than the base.
    """
    shared = [key for key in base.values if all(key in other.values for other in arms)]
    rows = []
    for arm in bar(arms, desc="bootstrap", unit="arm"):
        for key in shared if arm.name not in (base.name, baseline.name) else ():
            sign = 1 if key[0] == "accuracy" else -1
            ours, theirs, start = (sign * bootstrap.draws(one, one.values[key]) for one in (arm, baseline, base))
            means = [sign * one.mean(one.values[key]) for one in (arm, baseline, base)]
            gains, drawn = (means[0] - means[2], means[1] - means[2]), (ours - start, theirs - start)
            rows.append((arm.name, baseline.name, *key, *ratio_with_interval(*gains, *drawn, bootstrap.confidence)))
    kinds = {"arm": str, "baseline": str, **_KEY, "ratio": float, **_INTERVAL}
    return pd.DataFrame(rows, columns=list(kinds)).astype(kinds)


def ratio_with_interval(
    gain: float, reference: float, drawn: np.ndarray, drawn_reference: np.ndarray, confidence: float
) -> tuple[float, float, float]:
    """gain / reference with Fieller's interval; NaN unless the reference is distinguishably above 0.

    drawn, drawn_reference: bootstrap draws of the two, (n_resamples,) each, in pairs.
    """
    (a, b), (_, c) = np.cov(drawn, drawn_reference)  # variances of the two, b between them
    z2 = stats.norm.ppf((1 + confidence) / 2) ** 2
    denominator = reference**2 - z2 * c
    if reference <= 0 or denominator <= 0:
        return NOTHING
    middle = gain * reference - z2 * b
    half = np.sqrt(max(middle**2 - denominator * (gain**2 - z2 * a), 0.0))
    return gain / reference, float((middle - half) / denominator), float((middle + half) / denominator)


def learning_curve(histories: Sequence[pd.DataFrame], with_prover: bool = False) -> Curve:
    """Sampled tokens and validation accuracy, (n,) and (n_seeds, n): a running mean of three validations.

    All seeds are interpolated linearly at the tokens of the first. with_prover: the prover's tokens count as well.
    """
    curves = []
    for history in histories:
        seen = history[history["validation/accuracy"].notna()]
        tokens = seen["train/sampled_tokens"].fillna(0).to_numpy()
        if with_prover:
            tokens = tokens + seen["train/prover_tokens"].fillna(0).to_numpy()
        curves.append((tokens, seen["validation/accuracy"].rolling(_SMOOTHED, min_periods=1).mean().to_numpy()))
    grid = curves[0][0]
    return grid, np.stack([np.interp(grid, tokens, accuracy) for tokens, accuracy in curves])


def efficiency_table(arms: Sequence[Arm], baseline: Arm, bootstrap: Bootstrap) -> pd.DataFrame:
    """The table `comparison_efficiency`: tokens until the mean learning curve gets to a level, and the baseline's.

    The level is the lower of the two final ones, so that both get there. `ratio` is the baseline's tokens over the
    arm's; in `prover_ratio` the prover's tokens count as well. Beside them what was sampled in all.
    """
    trained = [arm for arm in arms if arm.histories]
    sampled, proved = ({arm.name: _learning(arm, prover, bootstrap) for arm in trained} for prover in (False, True))
    rows = []
    for arm in trained:
        level, tokens, baseline_tokens, *ratio = _at_shared_level(sampled[arm.name], sampled[baseline.name], bootstrap)
        *_, prover_ratio, low, high = _at_shared_level(proved[arm.name], proved[baseline.name], bootstrap)
        spent = [
            float(arm.shares @ [history[f"train/{kind}_tokens"].max() for history in arm.histories])
            for kind in ("sampled", "prover")
        ]
        named = (arm.name, baseline.name, level, tokens, baseline_tokens)
        rows.append((*named, *ratio, prover_ratio, low, high, *spent))
    columns = ["arm", "baseline", "level", "tokens_to_level", "baseline_tokens", "ratio", *_INTERVAL]
    columns += ["prover_ratio", "prover_ratio_low", "prover_ratio_high", "sampled_tokens", "prover_tokens"]
    return pd.DataFrame(rows, columns=columns)


def _learning(arm: Arm, with_prover: bool, bootstrap: Bootstrap) -> tuple[Curve, Curve]:
    """The mean learning curve of an arm, and that of each draw of its seeds."""
    tokens, accuracy = learning_curve(arm.histories, with_prover)
    return (tokens, arm.shares @ accuracy), (tokens, bootstrap.curves(arm, accuracy))


def _at_shared_level(
    ours: tuple[Curve, Curve], theirs: tuple[Curve, Curve], bootstrap: Bootstrap
) -> tuple[float, float, float, float, float, float]:
    """The lower of the two final accuracies, both arms' tokens until there; theirs over ours, with its interval."""
    (mean, drawn), (their_mean, their_drawn) = ours, theirs
    level = float(min(mean[1][-1], their_mean[1][-1]))
    levels = np.minimum(drawn[1][:, -1], their_drawn[1][:, -1])
    tokens, their_tokens = float(first_reached(*mean, level)), float(first_reached(*their_mean, level))
    ratios = first_reached(*their_drawn, levels) / first_reached(*drawn, levels)
    return level, tokens, their_tokens, their_tokens / tokens, *bootstrap.interval(ratios)


def majority_table(arms: Sequence[Arm], bootstrap: Bootstrap) -> pd.DataFrame:
    """The table `comparison_majority`: arm, k, accuracy with its interval, tokens."""
    rows = [
        (arm.name, k, *bootstrap.mean(arm, right), arm.mean(spent)) for arm in arms for k, right, spent in _votes(arm)
    ]
    return pd.DataFrame(rows, columns=["arm", "k", "accuracy", "ci_low", "ci_high", "tokens"])


def voting_table(arms: Sequence[Arm], baseline: Arm, bootstrap: Bootstrap) -> pd.DataFrame:
    """The table `comparison_voting`: tokens until an arm is as accurate as the baseline at maj@1, and at its best k."""
    means, drawn = {}, {}
    for arm in arms:
        _, right, spent = zip(*_votes(arm), strict=True)
        means[arm.name] = np.array([*map(arm.mean, spent)]), np.array([*map(arm.mean, right)])
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
