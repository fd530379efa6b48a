"""The closing table of a run, and its numbers as metrics."""

import pandas as pd

from mrt_pipeline.tracking.runs import check_finite


def markdown_report(regret: pd.DataFrame, accuracy: pd.DataFrame, title: str) -> str:
    """A Markdown table: a row a budget and way of stopping, base and trained side by side, intervals in brackets."""
    table = accuracy.merge(regret, on=["policy", "budget", "forced"], suffixes=("_accuracy", "_regret"))
    lines = [
        f"# {title}",
        "",
        "| budget | stop | accuracy: base | trained | regret: base | trained | thinking tokens: base | trained |",
        "| ---: | --- | --- | --- | --- | --- | ---: | ---: |",
    ]
    for (forced, budget), rows in table.groupby(["forced", "budget"]):
        pair = [rows[rows["policy"] == policy].iloc[0] for policy in ("base", "trained")]
        cells = [
            str(budget),
            "forced on" if forced else "natural",
            *(_interval(row, "accuracy") for row in pair),
            *(_interval(row, "regret") for row in pair),
            *(f"{row['thinking_tokens']:.0f}" for row in pair),
        ]
        lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines) + "\n"


def budget_metrics(regret: pd.DataFrame, accuracy: pd.DataFrame) -> dict[str, list[dict[str, float]]]:
    """Metric histories whose step is the budget: `regret` and `accuracy` of the trained policy, `..._base` of the base.

    Budget-forced values carry `_forced`, ends of the interval `_low` and `_high`. Raises ValueError if one is not
    finite.
    """
    histories: dict[str, list[dict[str, float]]] = {}
    for quantity, table in (("regret", regret), ("accuracy", accuracy)):
        for row in table.itertuples(index=False):
            name = quantity + ("_forced" if row.forced else "") + ("" if row.policy == "trained" else f"_{row.policy}")
            for suffix, value in (("", getattr(row, quantity)), ("_low", row.ci_low), ("_high", row.ci_high)):
                histories.setdefault(name + suffix, []).append({"value": float(value), "step": int(row.budget)})
    check_finite(
        {f"{name} at {point['step']}": point["value"] for name, points in histories.items() for point in points}
    )
    return histories


def _interval(row: pd.Series, quantity: str) -> str:
    return f"{row[quantity]:.3f} [{row[f'ci_low_{quantity}']:.3f}, {row[f'ci_high_{quantity}']:.3f}]"
