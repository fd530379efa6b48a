"""What was found: one sentence in words and one small table. Both are of the natural stop and the paper's regret."""

from collections.abc import Iterable

import pandas as pd

from mrt_pipeline.evaluation.intervals import BASE
from mrt_pipeline.reporting.cells import aligned, clear_sign

Rows = dict[tuple[str, int], pd.Series]  # by policy and budget


def verdict(
    regret: pd.DataFrame, accuracy: pd.DataFrame, thinking_budget: int, algorithm: str, confidence: float
) -> str:
    """The sentence on a run's `regret` and `accuracy`: what training changed or, without it, how the base thinks.

    A change whose interval includes 0, as it is printed, is called none.
    """
    regrets, accuracies = _natural(regret), _natural(accuracy)
    at = _nearest((budget for _, budget in regrets), thinking_budget)
    where = f"{at / thinking_budget:g}x budget ({at} thinking tokens)"
    row = regrets.get(("trained", at))
    if not any(round(score["accuracy"], 3) for score in accuracies.values()):
        when = "without training" if row is None else f"neither before nor after training by {algorithm}"
        return f"No answer was right at any budget, {when}: this policy is too weak for these problems."
    if row is None:
        return _base_verdict(regrets[BASE, at], accuracies, at, where, thinking_budget, confidence)
    sign, before = clear_sign(row), regrets[BASE, at]["regret"]
    found = _interval(row, "difference", confidence)
    if sign:
        how = "lowered" if sign < 0 else "raised"
        said = f"Training by {algorithm} {how} regret at {where} from {before:.3f} to {row['regret']:.3f} ({found})"
    else:
        said = f"Training by {algorithm} made no clear difference to regret at {where}: {before:.3f} before, "
        said += f"{row['regret']:.3f} after ({found}, which includes 0)"
    if ("trained", at) in accuracies:
        changed = clear_sign(accuracies["trained", at])
        said += f", {'and' if changed == -sign else 'but'} accuracy " + _change(accuracies, at)
    beyond = max((budget for _, budget in accuracies), default=at)
    if beyond > max(at, thinking_budget):
        said += f"; past the trained budget, at {beyond / thinking_budget:g}x, accuracy {_change(accuracies, beyond)}"
    return said + "."


def _change(accuracies: Rows, budget: int) -> str:
    row, before = accuracies["trained", budget], accuracies[BASE, budget]["accuracy"]
    after = row["accuracy"]
    if sign := clear_sign(row):
        return f"{'rose' if sign > 0 else 'fell'} from {before:.3f} to {after:.3f}"
    return f"shows no clear change ({before:.3f} before, {after:.3f} after)"


def _base_verdict(
    row: pd.Series, accuracies: Rows, at: int, where: str, thinking_budget: int, confidence: float
) -> str:
    """How well the tokens are used: accuracy by budget, and how much of the regret is for answers that come late."""
    regret, found = row["regret"], _interval(row, "ci", confidence)
    said = f"Without training, regret at {where} is {regret:.3f} ({found})"
    if (BASE, at) not in accuracies:
        return said + "."
    wrong = 1 - accuracies[BASE, at]["accuracy"]
    late = round(regret, 3) - round(wrong, 3)
    said += f": {wrong:.3f} for answers that are wrong in the end, "
    said += (
        f"{late:.3f} for right ones that come late"
        if late >= 0
        else f"less {-late:.3f} for right ones that were lost on the way"
    )
    steps = [f"{accuracies[key]['accuracy']:.3f} at {key[1] / thinking_budget:g}x" for key in sorted(accuracies)]
    return f"{said}; accuracy by budget: {', '.join(steps)}."


def comparison_verdict(comparison: pd.DataFrame, differences: pd.DataFrame, thinking_budget: int) -> str:
    """The sentence on a comparison: which arm has the lowest regret at 1x, and can it be told from the baseline's.

    If that is the baseline: whether the next one's can be told from it.
    """
    natural = comparison[(comparison["quantity"] == "regret") & ~comparison["forced"]]
    at = _nearest(natural["budget"], thinking_budget)
    means = natural[natural["budget"] == at].set_index("arm")["mean"].sort_values(kind="stable")
    others = set(differences["against"]) - {BASE}
    baseline = others.pop() if others else BASE
    best = means.index[0]
    rival = means.index[1] if best == baseline else baseline
    arm, against = (rival, best) if best == baseline else (best, rival)
    pair = (differences["arm"] == arm) & (differences["against"] == against) & (differences["quantity"] == "regret")
    row = differences[pair & ~differences["forced"] & (differences["budget"] == at)].iloc[0]
    what = {baseline: " (the baseline)", BASE: " (without training)"}
    clear = "excludes 0" if row["excludes_zero"] else "includes 0, so the two cannot be told apart"
    return (
        f"At {at / thinking_budget:g}x budget ({at} thinking tokens) {best}{what.get(best, '')} has the lowest regret, "
        f"{means[best]:.3f}, against {means[rival]:.3f} of {rival}{what.get(rival, '')}: the interval of the "
        f"difference, {row['ci_low']:+z.3f} to {row['ci_high']:+z.3f}, {clear}."
    )


def overview(regret: pd.DataFrame, accuracy: pd.DataFrame, thinking_budget: int) -> list[str]:
    """Budgets against accuracy and regret of each policy, as Markdown that also reads well as it is."""
    tables = {"accuracy": _natural(accuracy), "regret": _natural(regret)}
    policies = list(dict.fromkeys(policy for policy, _ in sorted(tables["regret"])))
    heads = ["budget", *(f"{quantity}: {policy}" for quantity in tables for policy in policies)]
    rows = [
        [
            f"{budget / thinking_budget:g}x ({budget})",
            *(
                f"{rows[policy, budget][quantity]:.3f}" if (policy, budget) in rows else ""
                for quantity, rows in tables.items()
                for policy in policies
            ),
        ]
        for budget in sorted({budget for _, budget in tables["regret"]})
    ]
    return aligned(heads, rows)


def comparison_overview(comparison: pd.DataFrame, thinking_budget: int) -> list[str]:
    """Arms against regret and accuracy at 1x."""
    natural = comparison[~comparison["forced"]]
    at = _nearest(natural["budget"], thinking_budget)
    means = natural[natural["budget"] == at].pivot(index="arm", columns="quantity", values="mean").sort_values("regret")
    rows = [[str(arm), f"{row['regret']:.3f}", f"{row.get('accuracy'):.3f}"] for arm, row in means.iterrows()]
    return aligned(["arm", f"regret at {at}", f"accuracy at {at}"], rows)


def _natural(table: pd.DataFrame) -> Rows:
    paper = table["definition"] == "paper" if "definition" in table else True
    return {(row["policy"], row["budget"]): row for _, row in table[~table["forced"] & paper].iterrows()}


def _nearest(budgets: Iterable[int], thinking_budget: int) -> int:
    """The training budget or, where nothing was measured there, the largest below it, else the smallest."""
    there = sorted(set(budgets))
    return max((budget for budget in there if budget <= thinking_budget), default=there[0])


def _interval(row: pd.Series, quantity: str, confidence: float) -> str:
    ends = f"{100 * confidence:g} % interval"
    if quantity == "ci":
        return f"{ends} {row['ci_low']:.3f} to {row['ci_high']:.3f}"
    low, high = row["difference_low"], row["difference_high"]
    return f"difference {row['difference']:+z.3f}, {ends} {low:+z.3f} to {high:+z.3f}"
