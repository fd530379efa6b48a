"""The closing table of a run, and its numbers as metrics."""

import pandas as pd

from mrt_pipeline.evaluation.regret_sources import SOURCES
from mrt_pipeline.tracking.runs import check_finite

_DEFINITION_SUFFIX = {"paper": "", "step": "_step", "paper_all_tokens": "_all_tokens"}


def markdown_report(
    regret: pd.DataFrame, accuracy: pd.DataFrame, sources: pd.DataFrame, stopping: pd.DataFrame, title: str
) -> str:
    """Markdown tables with the policies side by side, intervals in brackets.

    A row a budget and way of stopping; then regret by its other definitions, natural stop; then, of the natural way at
    the training budget, where regret comes from. sources: of `summarize_sources`.
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
            *(_interval(row, "accuracy") for row in side_by_side),
            *(_interval(row, "regret") for row in side_by_side),
            *(f"{row['thinking_tokens']:.0f}" for row in side_by_side),
        ]
        lines.append(f"| {' | '.join(cells)} |")
    lines += _definitions(regret, policies)
    names = [source.replace("_", " ") for source in SOURCES]
    lines += [
        "",
        "Where regret comes from (natural stop, training budget; J >= 0.5 is found; difficulty by the base's samples):",
        "",
        f"| policy | problems | number | regret | {' | '.join(names)} | traces that find | tokens after |",
        f"| --- | --- |{' ---: |' * (4 + len(names))}",
    ]
    for row in sources.to_dict("records"):
        shares = [f"{row[source]:.3f}" for source in ("regret", *SOURCES, "found")]
        after = "" if pd.isna(row["tokens_after"]) else f"{row['tokens_after']:.0f}"
        lines.append(f"| {' | '.join([row['policy'], row['difficulty'], str(row['n_problems']), *shares, after])} |")
    if len(stopping):
        lines += ["", "Stopping regret (stop and vote against thinking on, appendix E), first episodes:", ""]
        lines += ["| policy | episodes | regret | traces |", "| --- | ---: | --- | ---: |"]
        for row in stopping[stopping["episodes"].isin([1, 3, stopping["episodes"].max()])].itertuples():
            lines.append(f"| {row.policy} | {row.episodes} | {_with_interval(row)} | {row.n_traces} |")
    return "\n".join(lines) + "\n"


def _definitions(regret: pd.DataFrame, policies: list[str]) -> list[str]:
    natural = regret[~regret["forced"] & (regret["definition"] != "paper")]
    heads = [f"{name}: {policy}" for name in natural["definition"].unique() for policy in policies]
    lines = ["", "Regret by other definitions (docs/tables.md), natural stop:", "", f"| budget | {' | '.join(heads)} |"]
    lines.append(f"| ---: |{' --- |' * len(heads)}")
    for budget, rows in natural.groupby("budget"):
        by_head = {f"{row.definition}: {row.policy}": row for row in rows.itertuples()}
        cells = [by_head[head] for head in heads]
        lines.append(f"| {' | '.join([str(budget), *(_with_interval(cell) for cell in cells)])} |")
    return lines


def _with_interval(row) -> str:
    return f"{row.regret:.3f} [{row.ci_low:.3f}, {row.ci_high:.3f}]"


def budget_metrics(regret: pd.DataFrame, accuracy: pd.DataFrame) -> dict[str, list[dict[str, float]]]:
    """Metric histories whose step is the budget: `regret` and `accuracy` of the trained policy, `..._base` of the base.

    Budget-forced values carry `_forced`, other definitions of regret than the paper's `_step` and `_all_tokens`, ends
    of the interval `_low` and `_high`. Raises ValueError if one is not finite.
    """
    histories: dict[str, list[dict[str, float]]] = {}
    for quantity, table in (("regret", regret), ("accuracy", accuracy)):
        for row in table.itertuples(index=False):
            name = quantity + _DEFINITION_SUFFIX[getattr(row, "definition", "paper")]
            name += ("_forced" if row.forced else "") + ("" if row.policy == "trained" else f"_{row.policy}")
            for suffix, value in (("", getattr(row, quantity)), ("_low", row.ci_low), ("_high", row.ci_high)):
                histories.setdefault(name + suffix, []).append({"value": float(value), "step": int(row.budget)})
    check_finite(
        {f"{name} at {point['step']}": point["value"] for name, points in histories.items() for point in points}
    )
    return histories


def analysis_metrics(
    sources: pd.DataFrame, stopping: pd.DataFrame, thinking_budget: int
) -> dict[str, list[dict[str, float]]]:
    """Metric histories of where regret comes from (step: the budget) and stopping regret (step: episodes)."""
    histories: dict[str, list[dict[str, float]]] = {}
    for row in sources[sources["difficulty"] == "all"].to_dict("records"):
        suffix = "" if row["policy"] == "trained" else f"_{row['policy']}"
        for source in SOURCES:
            histories[f"regret_{source}{suffix}"] = [{"value": float(row[source]), "step": thinking_budget}]
    for row in stopping.itertuples(index=False):
        suffix = "" if row.policy == "trained" else f"_{row.policy}"
        point = {"value": float(row.regret), "step": int(row.episodes)}
        histories.setdefault(f"stopping_regret{suffix}", []).append(point)
    return histories


def _interval(row: pd.Series, quantity: str) -> str:
    return f"{row[quantity]:.3f} [{row[f'ci_low_{quantity}']:.3f}, {row[f'ci_high_{quantity}']:.3f}]"
