"""The closing table of a run, and its numbers as metrics."""

import pandas as pd

from mrt_pipeline.evaluation.regret_sources import QUANTITIES, SOURCES
from mrt_pipeline.reporting.cells import STAR, difference_cell, digits_of, interval_cell
from mrt_pipeline.tracking.runs import check_finite

_DEFINITION_SUFFIX = {"paper": "", "step": "_step", "paper_all_tokens": "_all_tokens"}


def markdown_report(
    regret: pd.DataFrame,
    accuracy: pd.DataFrame,
    sources: pd.DataFrame,
    stopping: pd.DataFrame,
    majority: pd.DataFrame,
    title: str,
) -> str:
    """Markdown tables with the policies side by side, intervals in brackets.

    A row a budget and way of stopping; the same of trained minus base; regret by its other definitions, natural stop;
    then, of the natural way at the training budget, where regret comes from; stopping regret; maj@k with its tokens.
    sources: a `regret_sources_summary` table.
    """
    table = accuracy.merge(
        regret[regret["definition"] == "paper"], on=["policy", "budget", "forced"], suffixes=("_accuracy", "_regret")
    )
    policies = sorted(set(table["policy"]))  # base, trained
    heads = [f"{what}: {policy}" for what in ("accuracy", "regret", "thinking tokens") for policy in policies]
    lines = [
        f"# {title}",
        "",
        f"| budget | stop | {' | '.join(heads)} |",
        f"| ---: | --- |{' --- |' * 2 * len(policies)}{' ---: |' * len(policies)}",
    ]
    for (forced, budget), rows in table.groupby(["forced", "budget"]):
        side_by_side = [rows[rows["policy"] == policy].iloc[0] for policy in policies]
        cells = [
            str(budget),
            "forced on" if forced else "natural",
            *(interval_cell(row, "accuracy", "_accuracy") for row in side_by_side),
            *(interval_cell(row, "regret", "_regret") for row in side_by_side),
            *(f"{row['thinking_tokens']:.0f}" for row in side_by_side),
        ]
        lines.append(f"| {' | '.join(cells)} |")
    lines += _differences(table) + _definitions(regret, policies) + _sources(sources) + _stopping(stopping)
    lines += _majorities(majority)
    return "\n".join(lines) + "\n"


def _differences(table: pd.DataFrame) -> list[str]:
    """Trained minus base at every budget; nothing where there is one policy."""
    compared = table[table["difference_regret"].notna()].sort_values(["forced", "budget"])
    if compared.empty:
        return []
    lines = ["", f"Trained minus base, paired by problem ({STAR}):", "", "| budget | stop | accuracy | regret |"]
    lines.append("| ---: | --- | --- | --- |")
    for _, row in compared.iterrows():
        stop = "forced on" if row["forced"] else "natural"
        cells = " | ".join(difference_cell(row, suffix) for suffix in ("_accuracy", "_regret"))
        lines.append(f"| {row['budget']} | {stop} | {cells} |")
    return lines


def _sources(sources: pd.DataFrame) -> list[str]:
    names = " | ".join(quantity.replace("_", " ") for quantity in QUANTITIES)
    heads = [f"| policy | problems | number | {names} |", f"| --- | --- | ---: |{' --- |' * len(QUANTITIES)}"]
    means, differences = [], []
    for (policy, difficulty, number), rows in sources.groupby(["policy", "difficulty", "n_problems"], sort=False):
        rows = rows.set_index("quantity").loc[list(QUANTITIES)]
        cells = [interval_cell(row, "mean", digits=digits_of(quantity)) for quantity, row in rows.iterrows()]
        means.append(f"| {policy} | {difficulty} | {number} | {' | '.join(cells)} |")
        cells = [difference_cell(row, digits=digits_of(quantity)) for quantity, row in rows.iterrows()]
        if any(cells):
            differences.append(f"| {policy} - base | {difficulty} | {number} | {' | '.join(cells)} |")
    title = (
        "Where regret comes from (natural stop, training budget; J >= 0.5 is found; difficulty by the base's samples)"
    )
    lines = ["", f"{title}:", "", *heads, *means]
    if differences:
        lines += ["", f"The same, trained minus base, paired by problem ({STAR}):", "", *heads, *differences]
    return lines


def _stopping(stopping: pd.DataFrame) -> list[str]:
    if stopping.empty:
        return []
    lines = ["", "Stopping regret (stop and vote against thinking on, appendix E), first episodes:", ""]
    lines += ["| policy | episodes | regret | minus base | traces |", "| --- | ---: | --- | --- | ---: |"]
    for _, row in stopping[stopping["episodes"].isin([1, 3, stopping["episodes"].max()])].iterrows():
        cells = [row["policy"], str(row["episodes"]), interval_cell(row, "regret"), difference_cell(row)]
        lines.append(f"| {' | '.join(cells)} | {row['n_traces']} |")
    return lines


def _definitions(regret: pd.DataFrame, policies: list[str]) -> list[str]:
    natural = regret[~regret["forced"] & (regret["definition"] != "paper")]
    heads = [f"{name}: {policy}" for name in natural["definition"].unique() for policy in policies]
    lines = ["", "Regret by other definitions (docs/tables.md), natural stop:", "", f"| budget | {' | '.join(heads)} |"]
    lines.append(f"| ---: |{' --- |' * len(heads)}")
    for budget, rows in natural.groupby("budget"):
        cells = {f"{row['definition']}: {row['policy']}": interval_cell(row, "regret") for _, row in rows.iterrows()}
        lines.append(f"| {' | '.join([str(budget), *(cells[head] for head in heads)])} |")
    return lines


def budget_metrics(regret: pd.DataFrame, accuracy: pd.DataFrame) -> dict[str, list[dict[str, float]]]:
    """Metric histories whose step is the budget: `regret` and `accuracy` of the trained policy, `..._base` of the base.

    Budget-forced values carry `_forced`, other definitions of regret than the paper's `_step`, `_all_tokens`, trained
    minus base `_minus_base`, ends of the interval `_low` and `_high`. Raises ValueError if one is not finite.
    """
    histories: dict[str, list[dict[str, float]]] = {}
    for quantity, table in (("regret", regret), ("accuracy", accuracy)):
        for row in table.itertuples(index=False):
            name = quantity + _DEFINITION_SUFFIX[getattr(row, "definition", "paper")]
            name += ("_forced" if row.forced else "") + ("" if row.policy == "trained" else f"_{row.policy}")
            for suffix, value in (("", getattr(row, quantity)), ("_low", row.ci_low), ("_high", row.ci_high)):
                histories.setdefault(name + suffix, []).append({"value": float(value), "step": int(row.budget)})
            for suffix in ("", "_low", "_high") if pd.notna(row.difference) else ():
                point = {"value": float(getattr(row, f"difference{suffix}")), "step": int(row.budget)}
                histories.setdefault(f"{name}_minus_base{suffix}", []).append(point)
    check_finite(
        {f"{name} at {point['step']}": point["value"] for name, points in histories.items() for point in points}
    )
    return histories


def analysis_metrics(
    sources: pd.DataFrame, stopping: pd.DataFrame, thinking_budget: int
) -> dict[str, list[dict[str, float]]]:
    """Metric histories of where regret comes from (step: the budget) and stopping regret (step: episodes)."""
    histories: dict[str, list[dict[str, float]]] = {}
    whole = sources[(sources["difficulty"] == "all") & sources["quantity"].isin(SOURCES)]
    for row in whole.itertuples(index=False):
        suffix = "" if row.policy == "trained" else f"_{row.policy}"
        histories[f"regret_{row.quantity}{suffix}"] = [{"value": float(row.mean), "step": thinking_budget}]
    for row in stopping.itertuples(index=False):
        suffix = "" if row.policy == "trained" else f"_{row.policy}"
        point = {"value": float(row.regret), "step": int(row.episodes)}
        histories.setdefault(f"stopping_regret{suffix}", []).append(point)
    return histories


def majority_metrics(majority: pd.DataFrame) -> dict[str, list[dict[str, float]]]:
    """Metric histories of maj@k and the tokens of k samples; the step is k. Names end as those of `budget_metrics`."""
    histories: dict[str, list[dict[str, float]]] = {}
    for row in majority.itertuples(index=False):
        kind = "_linearised" if row.linearised else ""
        suffix = kind + ("" if row.policy == "trained" else f"_{row.policy}")
        values = {"": row.accuracy, "_low": row.ci_low, "_high": row.ci_high}
        points = {f"majority{suffix}{end}": value for end, value in values.items()}
        for name, value in (points | {f"majority_tokens{suffix}": row.tokens}).items():
            histories.setdefault(name, []).append({"value": float(value), "step": int(row.k)})
    return histories


def _majorities(majority: pd.DataFrame) -> list[str]:
    ks = [k for k in sorted(set(majority["k"])) if k & (k - 1) == 0]
    lines = ["", "maj@k, and the tokens of k samples (natural stop; linearised: a window over the last episodes):", ""]
    lines += [f"| policy | samples | {' | '.join(f'maj@{k} | tokens' for k in ks)} |"]
    lines += [f"| --- | --- |{' --- | ---: |' * len(ks)}"]
    for (policy, linearised), rows in majority.groupby(["policy", "linearised"], sort=False):
        cells = [str(policy), "linearised" if linearised else "ordinary"]
        for _, row in rows[rows["k"].isin(ks)].iterrows():
            cells += [interval_cell(row, "accuracy"), f"{row['tokens']:.0f}"]
        lines.append(f"| {' | '.join(cells)} |")
    return lines
