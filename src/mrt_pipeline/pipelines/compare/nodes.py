"""Nodes of `compare`."""

import logging
from pathlib import Path

import pandas as pd
import plotly.graph_objects as go

from mrt_pipeline.evaluation.arms import find_baseline, make_arms
from mrt_pipeline.evaluation.compare import (
    comparison_table,
    difference_table,
    efficiency_table,
    gain_table,
    majority_table,
    sources_table,
    stopping_table,
    voting_table,
)
from mrt_pipeline.evaluation.intervals import Arm, Bootstrap
from mrt_pipeline.evaluation.params import CompareParams
from mrt_pipeline.evaluation.run_summary import keep
from mrt_pipeline.reporting.comparison import (
    analyses_report,
    comparison_figure,
    comparison_report,
    comparison_sources_figure,
    learning_figure,
    majority_figure,
)
from mrt_pipeline.tracking.read_runs import choose_runs

logger = logging.getLogger(__name__)


def read_arms(compare: CompareParams) -> list[Arm]:
    """Read the chosen runs, and measure each arm; keep the runs if that is asked for."""
    groups = choose_runs(compare)
    if compare.keep is not None:
        for own in groups.values():
            for run in own.values():
                logger.info("Kept: %s", keep(run, Path(compare.keep)))
    return make_arms(groups)


def compare_arms(arms: list[Arm], compare: CompareParams) -> tuple[pd.DataFrame, ...]:
    """The tables of the comparison, with bootstrap intervals.

    Means, paired differences to base and baseline, gain ratios, token efficiency; where regret comes from, stopping
    regret, tokens by voting for the baseline's accuracy, maj@k.
    """
    by_name = {arm.name: arm for arm in arms}
    base, baseline = arms[0], by_name[find_baseline(list(by_name), compare.baseline)]
    bootstrap = Bootstrap(arms, compare.n_resamples, compare.confidence, compare.seed)
    return (
        comparison_table(arms, bootstrap),
        difference_table(arms, [base, baseline], bootstrap),
        gain_table(arms, base, baseline, bootstrap),
        efficiency_table(arms, baseline, bootstrap),
        sources_table(arms, baseline, bootstrap),
        stopping_table(arms, baseline, bootstrap),
        voting_table(arms, baseline, bootstrap),
        majority_table(arms, bootstrap),
    )


def draw_comparison(
    arms: list[Arm], comparison: pd.DataFrame, sources: pd.DataFrame, majority: pd.DataFrame
) -> tuple[go.Figure, ...]:
    """Anytime curves, regret by budget and where it comes from, learning curves, maj@k against tokens."""
    return (
        comparison_figure(comparison, "accuracy"),
        comparison_figure(comparison, "regret"),
        comparison_sources_figure(sources),
        learning_figure(arms),
        majority_figure(majority),
    )


def report_comparison(
    comparison: pd.DataFrame,
    differences: pd.DataFrame,
    gains: pd.DataFrame,
    efficiency: pd.DataFrame,
    sources: pd.DataFrame,
    stopping: pd.DataFrame,
    voting: pd.DataFrame,
) -> str:
    """The report, as Markdown."""
    tables = (comparison, differences, gains, efficiency, voting)
    return comparison_report(*tables, int(sources["budget"].iloc[0])) + analyses_report(sources, stopping)
