"""Arms against each other: means over seeds and problems, paired differences, gain ratios; see `bootstrap`."""

from collections.abc import Sequence

import numpy as np
import pandas as pd

from mrt_pipeline.evaluation.bootstrap import Arm, Bootstrap, arm_mean
from mrt_pipeline.evaluation.evaluate import reading, trace_curves
from mrt_pipeline.evaluation.intervals import problem_means
from mrt_pipeline.mrt.regret import regret

_ROUNDING = 1e-9  # smaller differences are not ones


def measure(
    episodes: pd.DataFrame, anytime: pd.DataFrame, budgets: Sequence[int]
) -> dict[tuple[str, int, bool], pd.Series]:
    """Regret and accuracy of one policy on every problem, by (quantity, budget, forced); indexed by problem, sorted."""
    found: dict[tuple[str, int, bool], pd.Series] = {}
    for forced in (False, True):
        curves = trace_curves(reading(episodes, forced))
        problems = [problem for problem, _, _ in curves]
        for budget in budgets:
            regrets = [regret(x, y, budget) for _, x, y in curves]
            found["regret", budget, forced] = problem_means(regrets, problems)
            points = anytime[(anytime["n_tokens"] == budget) & (anytime["forced"] == forced)]
            if len(points):
                found["accuracy", budget, forced] = problem_means(points["success"], points["problem_id"])
    return found


def comparison_table(arms: Sequence[Arm], bootstrap: Bootstrap) -> pd.DataFrame:
    """Mean and interval of every arm, quantity, budget and way of stopping."""
    tokens = {(arm.name, *key): spent for arm in arms for key, spent in arm.thinking_tokens.items()}
    rows = _means(arms, "values", ("quantity", "budget", "forced"), bootstrap)
    return pd.DataFrame([{**row, "thinking_tokens": tokens[row["arm"], row["budget"], row["forced"]]} for row in rows])


def difference_table(arms: Sequence[Arm], against: Sequence[Arm], bootstrap: Bootstrap) -> pd.DataFrame:
    """Arm minus each of `against`, paired by problem and, where the seeds are the same, by seed."""
    rows = []
    for other in against:
        for arm in arms:
            for key in arm.values.keys() & other.values.keys() if arm.name != other.name else ():
                difference, low, high = _difference(arm, arm.values[key], other, other.values[key], bootstrap)
                rows.append(
                    {
                        "arm": arm.name,
                        "against": other.name,
                        "quantity": key[0],
                        "budget": key[1],
                        "forced": key[2],
                        "difference": difference,
                        "ci_low": low,
                        "ci_high": high,
                        "excludes_zero": low > _ROUNDING or high < -_ROUNDING,
                    }
                )
    table = pd.DataFrame(rows)
    return table.sort_values(["against", "arm", "quantity", "forced", "budget"], ignore_index=True)


def sources_table(arms: Sequence[Arm], baseline: Arm, bootstrap: Bootstrap) -> pd.DataFrame:
    """Where regret comes from, in each arm and minus the baseline: a `comparison_sources` table."""
    return _against(arms, baseline, "sources", {"difficulty": str, "quantity": str, "budget": int}, bootstrap)


def stopping_table(arms: Sequence[Arm], baseline: Arm, bootstrap: Bootstrap) -> pd.DataFrame:
    """Stopping regret of each arm that has it, and minus the baseline's: a `comparison_stopping` table."""
    table = _against(arms, baseline, "stopping", {"episodes": int}, bootstrap)
    return table[table["mean"].notna()].reset_index(drop=True)


def _against(
    arms: Sequence[Arm], baseline: Arm, part: str, names: dict[str, type], bootstrap: Bootstrap
) -> pd.DataFrame:
    """The rows of `_means` with the paired difference to the baseline; empty (NaN) where the baseline has no value."""
    by_name, theirs, rows = {arm.name: arm for arm in arms}, getattr(baseline, part), []
    for row in _means(arms, part, names, bootstrap):
        arm, key = by_name[row["arm"]], tuple(row[name] for name in names)
        found = (np.nan,) * 3
        if key in theirs:
            found = _difference(arm, getattr(arm, part)[key], baseline, theirs[key], bootstrap)
        paired = dict(zip(("difference", "difference_low", "difference_high"), found, strict=True))
        rows.append({**row, "baseline": baseline.name, **paired})
    kinds = {"arm": str, **names, "mean": float, "ci_low": float, "ci_high": float, "n_seeds": int, "n_problems": int}
    kinds |= {"baseline": str, "difference": float, "difference_low": float, "difference_high": float}
    return pd.DataFrame(rows, columns=list(kinds)).astype(kinds)


def _means(arms: Sequence[Arm], part: str, names: Sequence[str], bootstrap: Bootstrap) -> list[dict]:
    """A row for every array of the arms' field `part`; `names` are those of its keys."""
    rows = []
    for arm in arms:
        for key, values in getattr(arm, part).items():
            low, high = bootstrap.interval(bootstrap.draws(arm, values))
            columns = {"arm": arm.name, **dict(zip(names, key, strict=True))}
            numbers = {"mean": arm_mean(values), "ci_low": low, "ci_high": high}
            n_problems = int((~np.isnan(values)).any(axis=0).sum())
            rows.append({**columns, **numbers, "n_seeds": len(arm.seeds), "n_problems": n_problems})
    return rows


def _difference(
    arm: Arm, values: np.ndarray, other: Arm, theirs: np.ndarray, bootstrap: Bootstrap
) -> tuple[float, float, float]:
    low, high = bootstrap.interval(bootstrap.draws(arm, values) - bootstrap.draws(other, theirs))
    return arm_mean(values) - arm_mean(theirs), low, high


def gain_table(
    arms: Sequence[Arm], base: Arm, baseline: Arm, keys: Sequence[tuple[str, int, bool]], bootstrap: Bootstrap
) -> pd.DataFrame:
    """Gain over the base in units of the baseline's: (arm - base) / (baseline - base), for each of `keys`.

    Where the baseline is not distinguishably better than the base the ratio is undefined: NaN.
    """
    rows = []
    for arm in arms:
        for key in keys if arm.name not in (base.name, baseline.name) else ():
            start = bootstrap.draws(base, base.values[key])
            theirs = bootstrap.draws(baseline, baseline.values[key]) - start
            low, high = bootstrap.interval(theirs)
            ratio = ci_low = ci_high = np.nan
            improved = low > 0 if key[0] == "accuracy" else high < 0
            if improved:
                mean = base.values[key].mean()
                ratio = float((arm.values[key].mean() - mean) / (baseline.values[key].mean() - mean))
                ci_low, ci_high = bootstrap.interval((bootstrap.draws(arm, arm.values[key]) - start) / theirs)
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
