"""Where regret comes from and stopping regret, of the arms of a comparison."""

import pandas as pd
import plotly.graph_objects as go
from plotly.subplots import make_subplots

from mrt_pipeline.reporting.cells import STAR, difference_cell, digits_of, interval_cell, pivot
from mrt_pipeline.reporting.figures import source_bars

_SHOWN = (1, 3)  # episodes of stopping regret in the report, and the most


def analyses_report(sources: pd.DataFrame, stopping: pd.DataFrame) -> str:
    """Each arm's mean, then minus the baseline; of all problems, the difficulties are in the table and the figure.

    sources, stopping: the tables `comparison_sources` and `comparison_stopping`; the latter may be empty.
    """
    whole = sources[sources["difficulty"] == "all"]
    whole = whole.assign(column=whole["quantity"].str.replace("_", " "), digits=whole["quantity"].map(digits_of))
    budget = whole["budget"].iloc[0]
    lines = _both(whole, f"Where regret comes from, natural stop, {budget} thinking tokens (J >= 0.5 is found)")
    shown = stopping[stopping["episodes"].isin([*_SHOWN, stopping["episodes"].max()])]
    if len(shown):
        title = "Stopping regret (stop and vote against thinking on, appendix E) over the first episodes"
        lines += _both(shown.assign(column=shown["episodes"], digits=3), title)
    return "\n".join(lines) + "\n"


def _both(table: pd.DataFrame, title: str) -> list[str]:
    means = table.apply(lambda row: interval_cell(row, "mean", digits=row["digits"]), axis=1)
    differences = table.apply(lambda row: difference_cell(row, digits=row["digits"]), axis=1)
    baseline = table["baseline"].iloc[0]
    others = table.assign(cell=differences)[table["arm"] != baseline]
    lines = ["", f"## {title}", "", *pivot(table.assign(cell=means), "arm", "column")]
    return [*lines, "", f"Minus {baseline}, paired ({STAR}):", "", *pivot(others, "arm", "column")]


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
    figure.update_layout(barmode="stack", title="Where regret comes from", template="plotly_white")
    return figure
