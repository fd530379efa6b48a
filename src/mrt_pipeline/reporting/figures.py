"""Figures of one run: a policy a line or a bar."""

from typing import Any

import pandas as pd
import plotly.graph_objects as go

from mrt_pipeline.evaluation.regret_sources import SOURCES

_COLOURS = {"base": "#7f7f7f", "trained": "#d62728"}
SOURCE_COLOURS = ("#b2182b", "#ef8a62", "#fddbc7", "#d9d9d9")
_TITLES = {"accuracy": "Accuracy when stopped at a budget (the anytime curve)", "regret": "Normalised regret by budget"}


def budget_figure(table: pd.DataFrame, quantity: str, thinking_budget: int) -> go.Figure:
    """`quantity` against the budget for every policy: stopping where the model stops (solid) or forced on (dashed).

    table: a `regret` or `accuracy` table. Bars are the intervals; the vertical line the training budget.
    """
    figure = go.Figure()
    for (policy, forced), curve in table.groupby(["policy", "forced"], sort=False):
        name = f"{policy}, {'forced on' if forced else 'natural stop'}"
        figure.add_trace(interval_line(curve.sort_values("budget"), "budget", quantity, name, _line(policy, forced)))
    figure.add_vline(x=thinking_budget, line_dash="dot", annotation_text="training budget")
    return lay_out(figure, _TITLES[quantity], "thinking tokens (budget)", quantity, yaxis_rangemode="tozero")


def progress_figure(episodes: pd.DataFrame) -> go.Figure:
    """How much episodes add to J, by policy, up to the natural end (as figure 16 of arXiv 2503.07572)."""
    figure = go.Figure()
    own = episodes[~episodes["forced"] & ~episodes["stopped"]].dropna(subset="progress")
    for policy, table in own.groupby("policy", sort=False):
        figure.add_histogram(
            x=table["progress"],
            name=f"{policy}, mean {table['progress'].mean():+.3f}",
            histnorm="probability",
            xbins={"start": -1.025, "end": 1.025, "size": 0.05},
            opacity=0.6,
            marker_color=_COLOURS.get(str(policy)),
        )
    x, scales = "progress: J after the episode minus J before", {"xaxis_range": [-1.025, 1.025], "yaxis_type": "log"}
    return lay_out(figure, "Progress of episodes", x, "share of episodes", barmode="overlay", **scales)


def sources_figure(sources: pd.DataFrame, thinking_budget: int) -> go.Figure:
    """Normalised regret at the training budget, stacked by where it comes from; a bar a policy and difficulty.

    sources: a `regret_sources_summary` table. The bars at the top are the intervals of the regret; those of its parts
    are shown where one points at them.
    """
    names = sources["policy"] + ", " + sources["difficulty"] + " (" + sources["n_problems"].astype(str) + ")"
    title = f"Where regret comes from, at {thinking_budget} thinking tokens"
    x, y = "policy, difficulty for the base (problems)", "normalised regret"
    return lay_out(go.Figure(source_bars(sources.assign(name=names))), title, x, y, barmode="stack")


def source_bars(sources: pd.DataFrame) -> list[go.Bar]:
    """Stacked bars of the parts of regret, with the interval of the whole on top.

    sources: `name` (of the bar), `quantity`, `mean`, `ci_low`, `ci_high`.
    """
    bars = []
    for source, colour in zip(SOURCES, SOURCE_COLOURS, strict=True):
        rows = sources[sources["quantity"] == source]
        hover = [f"{row.mean:.3f} [{row.ci_low:.3f}, {row.ci_high:.3f}]" for row in rows.itertuples()]
        name = source.replace("_", " ")
        bars.append(go.Bar(x=rows["name"], y=rows["mean"], name=name, marker_color=colour, hovertext=hover))
    whole = sources[sources["quantity"] == "regret"].set_index("name")
    bars[-1].error_y = error_bars(whole.loc[bars[-1].x], "mean")  # the end of the last bar is the regret
    return bars


def majority_figure(majority: pd.DataFrame) -> go.Figure:
    """Accuracy of the majority of k samples against the tokens of all k (as figures 7 and 8 of arXiv 2503.07572).

    majority: the table of that name. A point is a k, from 1 on; dashed: linearised. Bars are the intervals.
    """
    figure = go.Figure()
    for (policy, linearised), curve in majority.groupby(["policy", "linearised"], sort=False):
        name = f"{policy}, linearised" if linearised else str(policy)
        figure.add_trace(majority_curve(curve.sort_values("k"), name, _line(policy, linearised)))
    title = "Token efficiency: maj@k against the tokens of k samples"
    x, y = "sampled tokens for a problem, of k samples together", "accuracy of the majority answer"
    return lay_out(figure, title, x, y, yaxis_rangemode="tozero")


def majority_curve(rows: pd.DataFrame, name: str, line: dict, **bars: float) -> go.Scatter:
    """Accuracy over tokens, a point a k, in the order of the rows: `k`, `accuracy` with its interval, `tokens`."""
    return interval_line(rows, "tokens", "accuracy", name, line, **bars).update(text=[f"maj@{k}" for k in rows["k"]])


def vote_figure(stop_and_vote: pd.DataFrame) -> go.Figure:
    """Stop after j episodes and vote over p answers (a line a j, named where p = 1); direct pass@k (dashed)."""
    figure, bars = go.Figure(), {"thickness": 0.5, "width": 1}
    for policy, table in stop_and_vote.groupby("policy", sort=False):
        colour = _COLOURS.get(str(policy))
        votes = table[(table["method"] == "vote") & table["p"].isin([1, 2, 4, 8])]
        for i, (j, curve) in enumerate(votes.groupby("episode")):
            line = {"color": colour, "width": 1}
            scatter = interval_line(curve, "n_tokens", "accuracy", f"{policy}, stopped after j", line, **bars)
            scatter.update(text=[str(j), *[""] * (len(curve) - 1)], mode="lines+markers+text", textposition="top left")
            scatter.update(textfont={"color": colour}, showlegend=i == 0, legendgroup=str(policy))
            figure.add_trace(scatter.update(hovertext=[f"[maj@{p}]_{j}" for p in curve["p"]]))
        direct = table[table["method"] == "direct"]
        scatter = interval_line(direct, "n_tokens", "accuracy", f"{policy}, direct pass@k", _line(policy, True), **bars)
        figure.add_trace(scatter.update(mode="lines"))
    title = "Stop after j episodes (the number beside a line) and vote over 1, 2, 4, 8 answers: [maj@p]_j"
    return lay_out(figure, title, "tokens, of the thought and of all answers", "accuracy", yaxis_rangemode="tozero")


def lay_out(figure: go.Figure, title: str, x: str, y: str, **layout: Any) -> go.Figure:
    """The figure with its title and those of its axes."""
    return figure.update_layout(title=title, xaxis_title=x, yaxis_title=y, template="plotly_white", **layout)


def interval_line(rows: pd.DataFrame, x: str, y: str, name: str, line: dict, **bars: float) -> go.Scatter:
    """A curve through the rows in their order, with the intervals of its points as bars of this style."""
    bars_of = error_bars(rows, y, **bars)
    return go.Scatter(x=rows[x], y=rows[y], name=name, mode="lines+markers", line=line, error_y=bars_of)


def error_bars(rows: pd.DataFrame, quantity: str, **style: float) -> dict:
    """The interval `ci_low` to `ci_high` around `quantity`, as plotly has it."""
    up, down = rows["ci_high"] - rows[quantity], rows[quantity] - rows["ci_low"]
    return {"type": "data", "symmetric": False, "array": up, "arrayminus": down, **style}


def _line(policy: object, dashed: bool) -> dict:
    return {"color": _COLOURS.get(str(policy)), "dash": "dash" if dashed else "solid"}
