"""The closing table of a run, and its numbers as metrics."""

import pandas as pd

from mrt_pipeline.tracking.runs import check_finite


def markdown_report(regret: pd.DataFrame, accuracy: pd.DataFrame, title: str) -> str:
    """A Markdown table: a row for each policy and budget, intervals in brackets."""
    table = accuracy.merge(regret, on=["policy", "budget", "forced"], suffixes=("_accuracy", "_regret"))
    lines = [
        f"# {title}",
        "",
        "| budget | after the natural end | policy | accuracy | regret | thinking tokens |",
        "| ---: | --- | --- | --- | --- | ---: |",
    ]
    for row in table.sort_values(["forced", "budget", "policy"], kind="stable").itertuples(index=False):
        lines.append(
            f"| {row.budget} | {'forced on' if row.forced else 'stopped'} | {row.policy} | "
            f"{_interval(row.accuracy, row.ci_low_accuracy, row.ci_high_accuracy)} | "
            f"{_interval(row.regret, row.ci_low_regret, row.ci_high_regret)} | {row.thinking_tokens:.0f} |"
        )
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


def _interval(value: float, low: float, high: float) -> str:
    return f"{value:.3f} [{low:.3f}, {high:.3f}]"
