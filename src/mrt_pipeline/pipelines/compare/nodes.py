"""Nodes of `compare`."""

import pandas as pd
import plotly.graph_objects as go

from mrt_pipeline.evaluation.arms import find_baseline, make_arms
from mrt_pipeline.evaluation.bootstrap import Arm, Bootstrap
from mrt_pipeline.evaluation.compare import (
    comparison_table,
    difference_table,
    gain_table,
    sources_table,
    stopping_table,
)
from mrt_pipeline.evaluation.efficiency import efficiency_table, majority_table, voting_table
from mrt_pipeline.evaluation.params import CompareParams
from mrt_pipeline.reporting.comparison import (
    analyses_report,
    comparison_figure,
    comparison_report,
    comparison_sources_figure,
    learning_figure,
    majority_figure,
)
from mrt_pipeline.tracking.read_runs import choose_runs


def read_arms(compare: CompareParams) -> list[Arm]:
    """Read the chosen runs from MLflow, and measure each arm."""
    return make_arms(choose_runs(compare))


def compare_arms(
    arms: list[Arm], compare: CompareParams
) -> tuple[pd.DataFrame, pd.DataFrame, pd.DataFrame, pd.DataFrame]:
    """Means, paired differences to base and baseline, gain ratios and token efficiency, with bootstrap intervals."""
    base, baseline, bootstrap = arms[0], _baseline(arms, compare), _bootstrap(arms, compare)
    return (
        comparison_table(arms, bootstrap),
        difference_table(arms, [base, baseline], bootstrap),
        gain_table(arms, base, baseline, bootstrap),
        efficiency_table(arms, baseline, bootstrap),
    )


def compare_thinking(
    arms: list[Arm], compare: CompareParams
) -> tuple[pd.DataFrame, pd.DataFrame, pd.DataFrame, pd.DataFrame]:
    """Where regret comes from, stopping regret, maj@k, and tokens by voting for the baseline's accuracy."""
    baseline, bootstrap = _baseline(arms, compare), _bootstrap(arms, compare)
    return (
        sources_table(arms, baseline, bootstrap),
        stopping_table(arms, baseline, bootstrap),
        majority_table(arms, bootstrap),
        voting_table(arms, baseline, bootstrap),
    )


def _baseline(arms: list[Arm], compare: CompareParams) -> Arm:
    by_name = {arm.name: arm for arm in arms}
    return by_name[find_baseline(list(by_name), compare.baseline)]


def _bootstrap(arms: list[Arm], compare: CompareParams) -> Bootstrap:
    return Bootstrap(arms, compare.n_resamples, compare.confidence, compare.seed)


def report_comparison(
    arms: list[Arm],
    comparison: pd.DataFrame,
    differences: pd.DataFrame,
    gains: pd.DataFrame,
    efficiency: pd.DataFrame,
    sources: pd.DataFrame,
    stopping: pd.DataFrame,
    majority: pd.DataFrame,
    voting: pd.DataFrame,
) -> tuple[str, go.Figure, go.Figure, go.Figure, go.Figure, go.Figure]:
    """The report, anytime curves, regret by budget and where it comes from, learning curves, maj@k against tokens."""
    return (
        comparison_report(comparison, differences, gains, efficiency, voting) + analyses_report(sources, stopping),
        comparison_figure(comparison, "accuracy"),
        comparison_figure(comparison, "regret"),
        comparison_sources_figure(sources),
        learning_figure(arms),
        majority_figure(majority),
    )
