"""Nodes of `compare`."""

import pandas as pd
import plotly.graph_objects as go

from mrt_pipeline.config import CompareParams
from mrt_pipeline.errors import InputError
from mrt_pipeline.evaluation.arms import check_comparable, make_arms
from mrt_pipeline.evaluation.compare import (
    BASE,
    Arm,
    Bootstrap,
    comparison_table,
    difference_table,
    efficiency_table,
    gain_table,
)
from mrt_pipeline.evaluation.voting import majority_table, voting_table
from mrt_pipeline.reporting.comparison import (
    comparison_figure,
    comparison_report,
    learning_figure,
    majority_figure,
)
from mrt_pipeline.tracking.read_runs import read_runs


def read_arms(compare: CompareParams) -> list[Arm]:
    """Read the runs from MLflow, refuse what cannot be compared, and group them by configuration."""
    names = [compare.runs] if isinstance(compare.runs, str) else compare.runs
    if not names:
        raise InputError("say what to compare: --params runs=<parent run, experiment or [run, run, ...]>")
    runs = read_runs(names)
    if not compare.allow_different:
        check_comparable(runs)
    return make_arms(runs)


def compare_arms(
    arms: list[Arm], compare: CompareParams
) -> tuple[pd.DataFrame, pd.DataFrame, pd.DataFrame, pd.DataFrame]:
    """Means, paired differences to base and baseline, gain ratios and token efficiency, with bootstrap intervals."""
    base, baseline = arms[0], _baseline(arms, compare.baseline)
    bootstrap = Bootstrap(arms, compare.n_resamples, compare.confidence, compare.seed)
    shared = set.intersection(*(set(arm.values) for arm in arms))
    keys = [key for key in base.values if key in shared]
    return (
        comparison_table(arms, bootstrap),
        difference_table(arms, [base, baseline], bootstrap),
        gain_table(arms, base, baseline, keys, bootstrap),
        efficiency_table(arms, baseline, bootstrap),
    )


def compare_votes(arms: list[Arm], compare: CompareParams) -> tuple[pd.DataFrame, pd.DataFrame]:
    """maj@k of every arm, and the tokens it needs by voting for the baseline's accuracy."""
    majority = majority_table(arms)
    return majority, voting_table(majority, _baseline(arms, compare.baseline).name)


def _baseline(arms: list[Arm], name: str) -> Arm:
    exact = [arm for arm in arms if arm.name == name]
    found = exact or [arm for arm in arms if arm.name.startswith(name) and arm.name != BASE]
    if len(found) != 1:
        names = ", ".join(f"'{arm.name}'" for arm in arms if arm.name != BASE)
        what = "none" if not found else "more than one"
        raise InputError(f"compare.baseline '{name}' fits {what} of the arms {names}: set it to one of them")
    return found[0]


def report_comparison(
    arms: list[Arm],
    comparison: pd.DataFrame,
    differences: pd.DataFrame,
    gains: pd.DataFrame,
    efficiency: pd.DataFrame,
    majority: pd.DataFrame,
    voting: pd.DataFrame,
) -> tuple[str, go.Figure, go.Figure, go.Figure, go.Figure]:
    """The report, anytime curves, regret by budget, learning curves, and maj@k against tokens."""
    return (
        comparison_report(comparison, differences, gains, efficiency, voting),
        comparison_figure(comparison, "accuracy"),
        comparison_figure(comparison, "regret"),
        learning_figure(arms),
        majority_figure(majority),
    )
