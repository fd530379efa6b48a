"""Figures."""

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
        curve = curve.sort_values("budget")
        colour = _COLOURS.get(str(policy))
        name = f"{policy}, {'forced on' if forced else 'natural stop'}"
        figure.add_trace(
            go.Scatter(
                x=curve["budget"],
                y=curve[quantity],
                name=name,
                mode="lines+markers",
                line={"color": colour, "dash": "dash" if forced else "solid"},
                error_y=error_bars(curve, quantity),
            )
        )
    figure.add_vline(x=thinking_budget, line_dash="dot", annotation_text="training budget")
    figure.update_layout(
        title=_TITLES[quantity],
        xaxis_title="thinking tokens (budget)",
        yaxis_title=quantity,
        yaxis_rangemode="tozero",
        template="plotly_white",
    )
    return figure


def progress_figure(episodes: pd.DataFrame) -> go.Figure:
    """How much episodes add to J, by policy, up to the natural end (as figure 16 of arXiv 2503.07572)."""
    figure = go.Figure()
    own = episodes[~episodes["forced"] & ~episodes["stopped"]].dropna(subset="progress")
    for policy, table in own.groupby("policy", sort=False):
        mean = table["progress"].mean()
        figure.add_trace(
            go.Histogram(
                x=table["progress"],
                name=f"{policy}, mean {mean:+.3f}",
                histnorm="probability",
                xbins={"start": -1.025, "end": 1.025, "size": 0.05},
                opacity=0.6,
                marker_color=_COLOURS.get(str(policy)),
            )
        )
    figure.update_layout(
        barmode="overlay",
        title="Progress of episodes",
        xaxis_title="progress: J after the episode minus J before",
        xaxis_range=[-1.025, 1.025],
        yaxis_title="share of episodes",
        yaxis_type="log",
        template="plotly_white",
    )
    return figure


def sources_figure(sources: pd.DataFrame, thinking_budget: int) -> go.Figure:
    """Normalised regret at the training budget, stacked by where it comes from; a bar a policy and difficulty.

    sources: a `regret_sources_summary` table. The bars at the top are the intervals of the regret; those of its parts
    are shown where one points at them.
    """
    names = sources["policy"] + ", " + sources["difficulty"] + " (" + sources["n_problems"].astype(str) + ")"
    figure = go.Figure(source_bars(sources.assign(name=names)))
    figure.update_layout(
        barmode="stack",
        title=f"Where regret comes from, at {thinking_budget} thinking tokens",
        xaxis_title="policy, difficulty for the base (problems)",
        yaxis_title="normalised regret",
        template="plotly_white",
    )
    return figure


def source_bars(sources: pd.DataFrame) -> list[go.Bar]:
    """Stacked bars of the parts of regret, with the interval of the whole on top.

    sources: `name` (of the bar), `quantity`, `mean`, `ci_low`, `ci_high`.
    """
    bars = []
    whole = sources[sources["quantity"] == "regret"].set_index("name")
    for source, colour in zip(SOURCES, SOURCE_COLOURS, strict=True):
        rows = sources[sources["quantity"] == source]
        hover = [f"{row.mean:.3f} [{row.ci_low:.3f}, {row.ci_high:.3f}]" for row in rows.itertuples()]
        name = source.replace("_", " ")
        bars.append(go.Bar(x=rows["name"], y=rows["mean"], name=name, marker_color=colour, hovertext=hover))
    last = whole.loc[bars[-1].x]  # the end of the last bar is the regret
    bars[-1].error_y = error_bars(last, "mean")
    return bars


def majority_figure(majority: pd.DataFrame) -> go.Figure:
    """Accuracy of the majority of k samples against the tokens of all k (as figures 7 and 8 of arXiv 2503.07572).

    majority: the table of that name. A point is a k, from 1 on; dashed: linearised. Bars are the intervals.
    """
    figure = go.Figure()
    for (policy, linearised), curve in majority.groupby(["policy", "linearised"], sort=False):
        curve = curve.sort_values("k")
        name = f"{policy}, linearised" if linearised else str(policy)
        line = {"color": _COLOURS.get(str(policy)), "dash": "dash" if linearised else "solid"}
        figure.add_trace(majority_curve(curve, name, line))
    figure.update_layout(
        title="Token efficiency: maj@k against the tokens of k samples",
        xaxis_title="sampled tokens for a problem, of k samples together",
        yaxis_title="accuracy of the majority answer",
        yaxis_rangemode="tozero",
        template="plotly_white",
    )
    return figure


def majority_curve(rows: pd.DataFrame, name: str, line: dict, **bars: float) -> go.Scatter:
    """Accuracy over tokens, a point a k, in the order of the rows: `k`, `accuracy` with its interval, `tokens`."""
    return go.Scatter(
        x=rows["tokens"],
        y=rows["accuracy"],
        text=[f"maj@{k}" for k in rows["k"]],
        name=name,
        mode="lines+markers",
        line=line,
        error_y=error_bars(rows, "accuracy", **bars),
    )


def vote_figure(stop_and_vote: pd.DataFrame) -> go.Figure:
    """Stop after j episodes and vote over p answers (a line a j, named where p = 1); direct pass@k (dashed)."""
    figure = go.Figure()
    for policy, table in stop_and_vote.groupby("policy", sort=False):
        colour = _COLOURS.get(str(policy))
        votes = table[table["method"] == "vote"]
        for i, (j, curve) in enumerate(votes.groupby("episode")):
            curve = curve[curve["p"].isin([1, 2, 4, 8])]
            figure.add_trace(
                go.Scatter(
                    x=curve["n_tokens"],
                    y=curve["accuracy"],
                    text=[str(j), *[""] * (len(curve) - 1)],
                    textposition="top left",
                    textfont={"color": colour},
                    hovertext=[f"[maj@{p}]_{j}" for p in curve["p"]],
                    name=f"{policy}, stopped after j",
                    legendgroup=str(policy),
                    showlegend=i == 0,
                    mode="lines+markers+text",
                    line={"color": colour, "width": 1},
                    error_y=error_bars(curve, "accuracy", thickness=0.5, width=1),
                )
            )
        direct = table[table["method"] == "direct"]
        figure.add_trace(
            go.Scatter(
                x=direct["n_tokens"],
                y=direct["accuracy"],
                name=f"{policy}, direct pass@k",
                mode="lines",
                line={"color": colour, "dash": "dash"},
                error_y=error_bars(direct, "accuracy", thickness=0.5, width=1),
            )
        )
    figure.update_layout(
        title="Stop after j episodes (the number beside a line) and vote over 1, 2, 4, 8 answers: [maj@p]_j",
        xaxis_title="tokens, of the thought and of all answers",
        yaxis_title="accuracy",
        yaxis_rangemode="tozero",
        template="plotly_white",
    )
    return figure


def error_bars(rows: pd.DataFrame, quantity: str, **style: float) -> dict:
    """The interval `ci_low` to `ci_high` around `quantity`, as plotly has it."""
    up, down = rows["ci_high"] - rows[quantity], rows[quantity] - rows["ci_low"]
    return {"type": "data", "symmetric": False, "array": up, "arrayminus": down, **style}
