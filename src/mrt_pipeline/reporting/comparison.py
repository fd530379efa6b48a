"""A comparison of arms as Markdown and figures."""

from collections.abc import Callable, Sequence

import numpy as np
import pandas as pd
import plotly.graph_objects as go
from plotly.colors import qualitative
from plotly.subplots import make_subplots

from mrt_pipeline.evaluation.compare import learning_curve
from mrt_pipeline.evaluation.intervals import Arm
from mrt_pipeline.reporting.cells import STAR, difference_cell, digits_of, interval_cell, markdown, pivot
from mrt_pipeline.reporting.figures import interval_line, lay_out, majority_curve, source_bars
from mrt_pipeline.reporting.verdict import comparison_overview, comparison_verdict

_STOPS = ((False, "natural stop"), (True, "forced on"))
_SHOWN = (1, 3)  # episodes of stopping regret in the report, and the most


def comparison_report(
    comparison: pd.DataFrame,
    differences: pd.DataFrame,
    gains: pd.DataFrame,
    efficiency: pd.DataFrame,
    voting: pd.DataFrame,
    thinking_budget: int,
) -> str:
    """The verdict; every arm at every budget, then differences, gain ratios and tokens."""
    arms = comparison[comparison["arm"] != "base"].drop_duplicates("arm")
    runs = ", ".join(f"{row['arm']} {row['n_seeds']}" for _, row in arms.iterrows())
    n_bases = int(comparison["n_bases"].max())
    over = "seeds and problems" if n_bases == 1 else f"seeds and problems, of {n_bases} bases that count equally"
    lines = [
        f"# Comparison on {comparison.iloc[0]['n_problems']} held-out problems",
        "",
        comparison_verdict(comparison, differences, thinking_budget),
        "",
        *comparison_overview(comparison, thinking_budget),
        "",
        f"Mean and bootstrap interval over {over}. Runs: {runs}.",
    ]
    lines += _by_budget(comparison, lambda row: interval_cell(row, "mean"))
    natural = comparison[(comparison["quantity"] == "accuracy") & ~comparison["forced"]]
    lines += _section("Thinking tokens, natural stop", natural, lambda row: f"{row['thinking_tokens']:.0f}")
    for other, rows in differences.groupby("against", sort=False):
        lines += _by_budget(rows, _starred, f" minus that of {other}", f" ({STAR})")
    if len(gains):
        stop = gains["forced"].map({True: "forced", False: "natural"})
        measure = gains["quantity"] + " at " + gains["budget"].astype(str) + ", " + stop
        title = f"Gain over the base, in gains of {gains.iloc[0]['baseline']}"
        by_arm = gains.assign(measure=measure)
        lines += _section(title, by_arm, lambda row: _ratio(row) or "undefined", ("measure", "arm"))
    learned = []
    for _, row in efficiency.iterrows():
        counts = ("tokens_to_level", "baseline_tokens", "sampled_tokens", "prover_tokens")
        ours, theirs, *spent = (_tokens(row[name]) for name in counts)
        with_prover = {"ratio": row["prover_ratio"]}
        with_prover |= {f"ci_{end}": row[f"prover_ratio_{end}"] for end in ("low", "high")}
        ratios = _ratio(row), _ratio(pd.Series(with_prover))
        learned.append([row["arm"], f"{row['level']:.3f}", ours, theirs, *ratios, *spent])
    voted = [
        [row["arm"], f"maj@{row['baseline_k']} ({row['level']:.3f})", _tokens(row["tokens"]), _ratio(row)]
        for _, row in voting.iterrows()
    ]
    first = efficiency.iloc[0]
    lines += [
        "",
        "## Tokens",
        "",
        "Sampled tokens until validation accuracy (running mean of three) reaches a level: the lower of the final ones "
        f"of the arm and of {first['baseline']}. The ratio is {first['baseline']}'s tokens over the arm's.",
        "",
        *markdown(
            ["arm", "level:", "tokens:", "baseline's:", "ratio", "ratio with the prover's", "sampled:", "prover's:"],
            learned,
        ),
        "",
        f"Tokens for a problem (thinking, answers) until maj@k equals that of {voting.iloc[0]['baseline']}, "
        "by straight lines between ks; the ratio is that arm's tokens over these, 0 if never.",
        "",
        *markdown(["arm", "as accurate as", "tokens:", "ratio"], voted),
    ]
    return "\n".join(lines) + "\n"


def analyses_report(sources: pd.DataFrame, stopping: pd.DataFrame) -> str:
    """Where regret comes from, and stopping regret: each arm's mean, then minus the baseline.

    sources, stopping: the tables `comparison_sources`, of which all problems are shown, and `comparison_stopping`,
    which may be empty.
    """
    whole = sources[sources["difficulty"] == "all"]
    whole = whole.assign(column=whole["quantity"].str.replace("_", " "), digits=whole["quantity"].map(digits_of))
    title = f"Where regret comes from, natural stop, {whole['budget'].iloc[0]} thinking tokens (J >= 0.5 is found)"
    lines = _with_differences(whole, title)
    spent = sources[sources["quantity"] == "thinking_tokens"].assign(column=lambda rows: rows["difficulty"], digits=1)
    lines += _with_differences(spent, "Thinking tokens by difficulty for the base, natural stop")
    shown = stopping[stopping["episodes"].isin([*_SHOWN, stopping["episodes"].max()])]
    if len(shown):
        title = "Stopping regret (stop and vote against thinking on, appendix E) over the first episodes"
        lines += _with_differences(shown.assign(column=shown["episodes"], digits=3), title)
    return "\n".join(lines) + "\n"


def _with_differences(table: pd.DataFrame, title: str) -> list[str]:
    by, baseline = ("arm", "column"), table["baseline"].iloc[0]
    lines = _section(title, table, lambda row: interval_cell(row, "mean", digits=row["digits"]), by)
    cells = table.apply(lambda row: difference_cell(row, digits=row["digits"]), axis=1)
    others = table.assign(cell=cells)[table["arm"] != baseline]
    return [*lines, "", f"Minus {baseline}, paired ({STAR}):", "", *pivot(others, *by)]


def _by_budget(table: pd.DataFrame, cell: Callable[[pd.Series], str], of: str = "", note: str = "") -> list[str]:
    """Sections for accuracy and regret, natural stop and forced on: a row an arm, a column a budget."""
    lines = []
    for quantity in ("accuracy", "regret"):
        for forced, stop in _STOPS:
            part = table[(table["quantity"] == quantity) & (table["forced"] == forced)]
            lines += _section(f"{quantity.capitalize()}{of}, {stop}{note}", part, cell)
    return lines


def _section(
    title: str, table: pd.DataFrame, cell: Callable[[pd.Series], str], by: tuple[str, str] = ("arm", "budget")
) -> list[str]:
    return ["", f"## {title}", "", *pivot(table.assign(cell=table.apply(cell, axis=1)), *by)]


def _starred(row: pd.Series) -> str:
    return interval_cell(row, "difference") + " *" * row["excludes_zero"]


def _ratio(row: pd.Series) -> str:
    return interval_cell(row, "ratio", digits=2)


def _tokens(number: float) -> str:
    return "never" if np.isnan(number) else f"{number:.0f}"


def comparison_figure(comparison: pd.DataFrame, quantity: str) -> go.Figure:
    """`quantity` by budget for every arm, with intervals: stopping where the model stops, and forced on beside it."""
    figure = make_subplots(1, len(_STOPS), subplot_titles=[stop for _, stop in _STOPS], shared_yaxes=True)
    arms = list(dict.fromkeys(comparison["arm"]))
    for (arm, forced), curve in comparison[comparison["quantity"] == quantity].groupby(["arm", "forced"], sort=False):
        line = {"color": arm_colour(arms.index(arm))}
        scatter = interval_line(curve.sort_values("budget"), "budget", "mean", arm, line, thickness=0.8, width=2)
        figure.add_trace(scatter.update(legendgroup=arm, showlegend=not forced), row=1, col=2 if forced else 1)
    figure.update_xaxes(title="thinking tokens (budget)").update_yaxes(rangemode="nonnegative")
    return lay_out(figure, f"{quantity.capitalize()} by budget", "thinking tokens (budget)", quantity)


def comparison_sources_figure(sources: pd.DataFrame) -> go.Figure:
    """Normalised regret of each arm, stacked by where it comes from: over all problems, then by difficulty."""
    groups = ["all", *(name for name in dict.fromkeys(sources["difficulty"]) if name != "all")]
    numbers = sources.groupby("difficulty")["n_problems"].max()
    titles = [f"{name} ({numbers[name]} problems)" for name in groups]
    figure = make_subplots(1, len(groups), subplot_titles=titles, shared_yaxes=True)
    for i, group in enumerate(groups, start=1):
        for bar in source_bars(sources[sources["difficulty"] == group].assign(name=lambda rows: rows["arm"])):
            figure.add_trace(bar.update(legendgroup=bar.name, showlegend=i == 1), row=1, col=i)
    figure.update_yaxes(title="normalised regret", col=1)
    return figure.update_layout(barmode="stack", title="Where regret comes from", template="plotly_white")


def learning_figure(arms: Sequence[Arm]) -> go.Figure:
    """Validation accuracy against sampled tokens: the mean over seeds, and a thin line a seed."""
    figure = go.Figure()
    for i, arm in enumerate(arms):
        if not arm.histories:
            continue
        tokens, accuracy = learning_curve(arm.histories)
        line = {"color": arm_colour(i)}
        figure.add_scatter(x=tokens, y=arm.shares @ accuracy, name=arm.name, mode="lines", line=line)
        thin = {"mode": "lines", "line": {**line, "width": 0.5}, "showlegend": False, "hoverinfo": "skip"}
        figure.add_traces([go.Scatter(x=tokens, y=curve, **thin) for curve in accuracy if len(accuracy) > 1])
    y = "validation accuracy (running mean of three)"
    return lay_out(figure, "Learning curves", "sampled tokens", y, yaxis_rangemode="nonnegative")


def majority_figure(majority: pd.DataFrame) -> go.Figure:
    """maj@k against the tokens of the k samples, an arm a line."""
    figure = go.Figure()
    for i, (arm, rows) in enumerate(majority.groupby("arm", sort=False)):
        figure.add_trace(majority_curve(rows, arm, {"color": arm_colour(i)}, thickness=0.5, width=1))
    x = "tokens for a problem (thinking and answers of k samples)"
    y = "accuracy of the majority answer"
    return lay_out(figure, "maj@k at the training budget", x, y, yaxis_rangemode="nonnegative")


def arm_colour(i: int) -> str:
    """Of arm i; the base, which is the first, is grey."""
    return "#7f7f7f" if i == 0 else qualitative.Dark24[(i - 1) % len(qualitative.Dark24)]
