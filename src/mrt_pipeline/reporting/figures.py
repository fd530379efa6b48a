"""Figures."""

import pandas as pd
import plotly.graph_objects as go

_COLOURS = {"base": "#7f7f7f", "trained": "#d62728"}
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
                error_y={
                    "type": "data",
                    "symmetric": False,
                    "array": curve["ci_high"] - curve[quantity],
                    "arrayminus": curve[quantity] - curve["ci_low"],
                },
            )
        )
    figure.add_vline(x=thinking_budget, line_dash="dot", annotation_text="training budget")
    figure.update_layout(
        title=_TITLES[quantity], xaxis_title="thinking tokens (budget)", yaxis_title=quantity, template="plotly_white"
    )
    return figure
