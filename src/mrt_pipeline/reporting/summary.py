"""The closing table of a run, and its numbers as metrics."""

import pandas as pd

from mrt_pipeline.evaluation.regret_sources import SOURCES
from mrt_pipeline.tracking.runs import check_finite


def markdown_report(
    regret: pd.DataFrame,
    accuracy: pd.DataFrame,
    sources: pd.DataFrame,
    stopping: pd.DataFrame,
    majority: pd.DataFrame,
    title: str,
) -> str:
    """Markdown tables with the policies side by side, intervals in brackets.

    A row a budget and way of stopping; then, of the natural way at the training budget, where regret comes from; then
    stopping regret, and maj@k with its tokens.
    sources: of `summarize_sources`.
    """
    table = accuracy.merge(regret, on=["policy", "budget", "forced"], suffixes=("_accuracy", "_regret"))
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
            interval = f"{row.regret:.3f} [{row.ci_low:.3f}, {row.ci_high:.3f}]"
            lines.append(f"| {row.policy} | {row.episodes} | {interval} | {row.n_traces} |")
    ks = [k for k in sorted(set(majority["k"])) if k & (k - 1) == 0]
    lines += ["", "maj@k, and the tokens of k samples (natural stop; linearised: a window over the last episodes):", ""]
    lines += [f"| policy | samples | {' | '.join(f'maj@{k} | tokens' for k in ks)} |"]
    lines += [f"| --- | --- |{' --- | ---: |' * len(ks)}"]
    for (policy, linearised), rows in majority.groupby(["policy", "linearised"], sort=False):
        cells = [str(policy), "linearised" if linearised else "ordinary"]
        for row in rows[rows["k"].isin(ks)].itertuples():
            cells += [f"{row.accuracy:.3f} [{row.ci_low:.3f}, {row.ci_high:.3f}]", f"{row.tokens:.0f}"]
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


def _interval(row: pd.Series, quantity: str) -> str:
    return f"{row[quantity]:.3f} [{row[f'ci_low_{quantity}']:.3f}, {row[f'ci_high_{quantity}']:.3f}]"
