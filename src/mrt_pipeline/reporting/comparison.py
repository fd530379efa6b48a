"""A comparison as Markdown and figures."""

from collections.abc import Sequence

import numpy as np
import pandas as pd
import plotly.graph_objects as go
from plotly.colors import qualitative
from plotly.subplots import make_subplots

from mrt_pipeline.evaluation.bootstrap import Arm
from mrt_pipeline.evaluation.efficiency import learning_curve
from mrt_pipeline.reporting.cells import STAR, interval_cell, pivot
from mrt_pipeline.reporting.figures import error_bars, majority_curve

_STOPS = ((False, "natural stop"), (True, "forced on"))


def comparison_report(
    comparison: pd.DataFrame,
    differences: pd.DataFrame,
    gains: pd.DataFrame,
    efficiency: pd.DataFrame,
    voting: pd.DataFrame,
) -> str:
    """Every arm at every budget, then differences, gain ratios and tokens."""
    first = comparison.iloc[0]
    seeds = comparison.groupby("arm", sort=False)["n_seeds"].first()
    lines = [
        f"# Comparison on {first['n_problems']} held-out problems",
        "",
        "Mean and bootstrap interval over seeds and problems. Seeds: "
        + ", ".join(f"{arm} {n}" for arm, n in seeds.items() if arm != "base")
        + ".",
    ]
    for quantity in ("accuracy", "regret"):
        for forced, stop in _STOPS:
            part = comparison[(comparison["quantity"] == quantity) & (comparison["forced"] == forced)]
            cells = part.apply(lambda row: interval_cell(row, "mean"), axis=1)
            lines += ["", f"## {quantity.capitalize()}, {stop}", "", *pivot(part.assign(cell=cells), "arm")]
    natural = comparison[(comparison["quantity"] == "accuracy") & ~comparison["forced"]]
    cells = natural["thinking_tokens"].map("{:.0f}".format)
    lines += ["", "## Thinking tokens, natural stop", "", *pivot(natural.assign(cell=cells), "arm")]
    for other, rows in differences.groupby("against", sort=False):
        for quantity in ("accuracy", "regret"):
            for forced, stop in _STOPS:
                part = rows[(rows["quantity"] == quantity) & (rows["forced"] == forced)]
                cells = part.apply(
                    lambda row: interval_cell(row, "difference") + (" *" if row["excludes_zero"] else ""), axis=1
                )
                title = f"## {quantity.capitalize()} minus that of {other}, {stop} ({STAR})"
                lines += ["", title, "", *pivot(part.assign(cell=cells), "arm")]
    if len(gains):
        what = gains.apply(
            lambda row: f"{row['quantity']} at {row['budget']}, {'forced' if row['forced'] else 'natural'}", axis=1
        )
        cells = gains.apply(
            lambda row: "undefined" if np.isnan(row["ratio"]) else interval_cell(row, "ratio", digits=2), axis=1
        )
        title = f"## Gain over the base, in gains of {gains.iloc[0]['baseline']}"
        lines += ["", title, "", *pivot(gains.assign(cell=cells, measure=what, budget=gains["arm"]), "measure")]
    lines += ["", "## Tokens", ""]
    lines.append(
        f"Sampled tokens until validation accuracy (running mean of three) reaches {efficiency.iloc[0]['level']:.3f}, "
        f"the final level of {efficiency.iloc[0]['baseline']}; the ratio is that arm's tokens over these, 0 if never."
    )
    lines += ["", "| arm | tokens to level | ratio | sampled | prover's |", "| --- | ---: | ---: | ---: | ---: |"]
    for row in efficiency.itertuples(index=False):
        reached = "never" if np.isnan(row.tokens_to_level) else f"{row.tokens_to_level:.0f}"
        ratio = f"{row.ratio:.2f} [{row.ci_low:.2f}, {row.ci_high:.2f}]"
        lines.append(f"| {row.arm} | {reached} | {ratio} | {row.sampled_tokens:.0f} | {row.prover_tokens:.0f} |")
    lines += [
        "",
        f"Tokens for a problem (thinking, answers) until maj@k equals that of {voting.iloc[0]['baseline']}, "
        "by straight lines between ks; the ratio is that arm's tokens over these, 0 if never.",
        "",
        "| arm | as accurate as | tokens | ratio |",
        "| --- | --- | ---: | --- |",
    ]
    for row in voting.itertuples(index=False):
        reached = "never" if np.isnan(row.tokens) else f"{row.tokens:.0f}"
        ratio = f"{row.ratio:.2f} [{row.ci_low:.2f}, {row.ci_high:.2f}]"
        lines.append(f"| {row.arm} | maj@{row.baseline_k} ({row.level:.3f}) | {reached} | {ratio} |")
    return "\n".join(lines) + "\n"


def comparison_figure(comparison: pd.DataFrame, quantity: str) -> go.Figure:
    """`quantity` by budget for every arm, with intervals: stopping where the model stops, and forced on beside it."""
    figure = make_subplots(1, len(_STOPS), subplot_titles=[stop for _, stop in _STOPS], shared_yaxes=True)
    arms = list(dict.fromkeys(comparison["arm"]))
    for (arm, forced), curve in comparison[comparison["quantity"] == quantity].groupby(["arm", "forced"], sort=False):
        curve = curve.sort_values("budget")
        line = go.Scatter(
            x=curve["budget"],
            y=curve["mean"],
            name=arm,
            legendgroup=arm,
            showlegend=not forced,
            mode="lines+markers",
            line={"color": arm_colour(arms.index(arm))},
            error_y=error_bars(curve, "mean", thickness=0.8, width=2),
        )
        figure.add_trace(line, row=1, col=2 if forced else 1)
    figure.update_xaxes(title="thinking tokens (budget)")
    figure.update_yaxes(rangemode="nonnegative")
    figure.update_yaxes(title=quantity, col=1)
    figure.update_layout(title=f"{quantity.capitalize()} by budget", template="plotly_white")
    return figure


def learning_figure(arms: Sequence[Arm]) -> go.Figure:
    """Validation accuracy against sampled tokens: the mean over seeds, and a thin line a seed."""
    figure = go.Figure()
    for i, arm in enumerate(arms):
        if not arm.histories:
            continue
        tokens, accuracy = learning_curve(arm.histories)
        line = {"color": arm_colour(i)}
        figure.add_trace(go.Scatter(x=tokens, y=accuracy.mean(axis=0), name=arm.name, mode="lines", line=line))
        for curve in accuracy if len(accuracy) > 1 else ():
            thin = go.Scatter(
                x=tokens, y=curve, mode="lines", line={**line, "width": 0.5}, showlegend=False, hoverinfo="skip"
            )
            figure.add_trace(thin)
    figure.update_layout(
        title="Learning curves",
        xaxis_title="sampled tokens",
        yaxis_title="validation accuracy (running mean of three)",
        yaxis_rangemode="nonnegative",
        template="plotly_white",
    )
    return figure


def majority_figure(majority: pd.DataFrame) -> go.Figure:
    """maj@k against the tokens of the k samples, an arm a line."""
    figure = go.Figure()
    for i, (arm, rows) in enumerate(majority.groupby("arm", sort=False)):
        figure.add_trace(majority_curve(rows, arm, {"color": arm_colour(i)}, thickness=0.5, width=1))
    figure.update_layout(
        title="maj@k at the training budget",
        xaxis_title="tokens for a problem (thinking and answers of k samples)",
        yaxis_title="accuracy of the majority answer",
        yaxis_rangemode="nonnegative",
        template="plotly_white",
    )
    return figure


def arm_colour(i: int) -> str:
    """Of arm i; the base, which is the first, is grey."""
    return "#7f7f7f" if i == 0 else qualitative.Dark24[(i - 1) % len(qualitative.Dark24)]
