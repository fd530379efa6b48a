"""Arms against each other: means over seeds and problems, paired differences, gain ratios; see `bootstrap`."""

from collections.abc import Mapping, Sequence

import numpy as np
import pandas as pd

from mrt_pipeline.bars import bar
from mrt_pipeline.evaluation.bootstrap import Arm, Bootstrap
from mrt_pipeline.evaluation.evaluate import problem_regrets, reading
from mrt_pipeline.evaluation.intervals import DIFFERENCE, NOTHING, problem_means

_KEY = {"quantity": str, "budget": int, "forced": bool}
_ROUNDING = 1e-9  # smaller differences are not ones


def measure(
    episodes: pd.DataFrame, anytime: pd.DataFrame, budgets: Sequence[int]
) -> dict[tuple[str, int, bool], pd.Series]:
    """Regret and accuracy of one policy on every problem, by (quantity, budget, forced); indexed by problem, sorted."""
    found: dict[tuple[str, int, bool], pd.Series] = {}
    for forced in (False, True):
        regrets = problem_regrets(reading(episodes, forced), budgets)
        for budget in budgets:
            found["regret", budget, forced] = regrets[budget]
            points = anytime[(anytime["n_tokens"] == budget) & (anytime["forced"] == forced)]
            if len(points):
                found["accuracy", budget, forced] = problem_means(points["success"], points["problem_id"])
    return found


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
    kinds = {"arm": str, **names, "mean": float, "ci_low": float, "ci_high": float, "n_seeds": int, "n_problems": int}
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
    rows = []
    for arm in bar(arms, desc="bootstrap", unit="arm"):
        for key in base.values if arm.name not in (base.name, baseline.name) else ():
            if not all(key in other.values for other in arms):
                continue
            start = bootstrap.draws(base, base.values[key])
            gained = bootstrap.draws(baseline, baseline.values[key]) - start
            low, high = bootstrap.interval(gained)
            found = NOTHING
            if low > 0 if key[0] == "accuracy" else high < 0:
                ours, theirs, mean = (one.values[key].mean() for one in (arm, baseline, base))
                drawn = (bootstrap.draws(arm, arm.values[key]) - start) / gained
                found = float((ours - mean) / (theirs - mean)), *bootstrap.interval(drawn)
            rows.append((arm.name, baseline.name, *key, *found))
    table = pd.DataFrame(rows, columns=["arm", "baseline", *_KEY, "ratio", "ci_low", "ci_high"])
    return table.astype({"arm": str, "baseline": str, **_KEY, "ratio": float, "ci_low": float, "ci_high": float})
