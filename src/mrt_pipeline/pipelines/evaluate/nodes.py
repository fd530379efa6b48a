"""Nodes of `evaluate` and `evaluate_trained` that measure what `sampling.py` has sampled and labelled.

Functions of one or two policies: the tables of the trained one come last, and may be left out.
"""

import pandas as pd
import plotly.graph_objects as go

from mrt_pipeline.evaluation.evaluate import (
    accuracy_by_budget,
    budgets_of,
    regret_by_all_tokens,
    regret_by_budget,
)
from mrt_pipeline.evaluation.intervals import Intervals
from mrt_pipeline.evaluation.majority import majority_by_policy
from mrt_pipeline.evaluation.regret_sources import regret_sources, summarize_sources
from mrt_pipeline.evaluation.stop_and_vote import stopping_regret, vote_accuracy
from mrt_pipeline.reporting.figures import (
    budget_figure,
    majority_figure,
    progress_figure,
    sources_figure,
    vote_figure,
)
from mrt_pipeline.reporting.summary import analysis_metrics, budget_metrics, majority_metrics, markdown_report
from mrt_pipeline.tasks.base import Task
from mrt_pipeline.tracking.runs import log_metrics


def measure_budgets(
    thinking_budget: int,
    budget_multiples: list[float],
    confidence: float,
    n_resamples: int,
    seed: int,
    base_rollouts: pd.DataFrame,
    base_episodes: pd.DataFrame,
    base_anytime: pd.DataFrame,
    base_votes: pd.DataFrame,
    trained_rollouts: pd.DataFrame | None = None,
    trained_episodes: pd.DataFrame | None = None,
    trained_anytime: pd.DataFrame | None = None,
    trained_votes: pd.DataFrame | None = None,
) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Regret and accuracy of each policy at every budget, and trained minus base, with bootstrap intervals."""
    budgets = budgets_of(thinking_budget, budget_multiples)
    intervals = Intervals(confidence, n_resamples, seed)
    rollouts = _both(base_rollouts, trained_rollouts)
    regret = pd.concat(
        [
            regret_by_budget(_both(base_episodes, trained_episodes), budgets, intervals),
            regret_by_all_tokens(_both(base_votes, trained_votes), rollouts, budgets, intervals),
        ],
        ignore_index=True,
    )
    return regret, accuracy_by_budget(_both(base_anytime, trained_anytime), rollouts, budgets, intervals)


def measure_majority(
    confidence: float,
    n_resamples: int,
    seed: int,
    base_samples: pd.DataFrame,
    base_linearised: pd.DataFrame,
    trained_samples: pd.DataFrame | None = None,
    trained_linearised: pd.DataFrame | None = None,
) -> pd.DataFrame:
    """maj@k against the tokens of k samples, of each policy, ordinary samples and linearised ones."""
    return majority_by_policy(
        _both(base_samples, trained_samples),
        _both(base_linearised, trained_linearised),
        Intervals(confidence, n_resamples, seed),
    )


def analyse_thinking(
    thinking_budget: int,
    confidence: float,
    n_resamples: int,
    seed: int,
    base_samples: pd.DataFrame,
    base_episodes: pd.DataFrame,
    base_votes: pd.DataFrame,
    trained_episodes: pd.DataFrame | None = None,
    trained_votes: pd.DataFrame | None = None,
) -> tuple[pd.DataFrame, pd.DataFrame, pd.DataFrame, pd.DataFrame]:
    """Where regret comes from, trace by trace and in the mean; [maj@p]_j against direct answers; stopping regret."""
    votes = _both(base_votes, trained_votes)
    intervals = Intervals(confidence, n_resamples, seed)
    sources = regret_sources(_both(base_episodes, trained_episodes), base_samples, thinking_budget)
    return (
        sources,
        summarize_sources(sources, intervals),
        vote_accuracy(votes, intervals),
        stopping_regret(votes, intervals),
    )


def draw_progress(base_episodes: pd.DataFrame, trained_episodes: pd.DataFrame | None = None) -> go.Figure:
    """Histogram of the progress of episodes."""
    return progress_figure(_both(base_episodes, trained_episodes))


def report(
    regret: pd.DataFrame,
    accuracy: pd.DataFrame,
    summary: pd.DataFrame,
    stop_and_vote: pd.DataFrame,
    stopping: pd.DataFrame,
    majority: pd.DataFrame,
    task: Task,
    algorithm: str,
    thinking_budget: int,
    seed: int,
    base_samples: pd.DataFrame,
    trained_samples: pd.DataFrame | None = None,
) -> tuple[str, go.Figure, go.Figure, go.Figure, go.Figure, go.Figure]:
    """The closing tables and the figures; the numbers go to MLflow, with the budget as the step, or k of maj@k."""
    measured = task.trace_metrics
    by_step: dict[int, dict[str, float]] = {}
    for points in (
        budget_metrics(regret, accuracy),
        analysis_metrics(summary, stopping, thinking_budget),
        majority_metrics(majority),
    ):
        for name, history in points.items():
            for point in history:
                by_step.setdefault(int(point["step"]), {})[f"evaluation/{name}"] = point["value"]
    for step, metrics in by_step.items():
        log_metrics(metrics, step)
    for suffix, samples in (("", trained_samples), ("_base", base_samples)):
        if samples is None:
            continue
        found = measured(samples["text"].tolist())
        log_metrics({f"evaluation/{name}{suffix}": value for name, value in found.items()}, thinking_budget)
    what = f"{algorithm}, seed {seed}" if trained_samples is not None else "base policy"
    title = f"{what}, training budget {thinking_budget} thinking tokens"
    return (
        markdown_report(regret, accuracy, summary, stopping, majority, title),
        budget_figure(accuracy, "accuracy", thinking_budget),
        budget_figure(regret[regret["definition"] == "paper"], "regret", thinking_budget),
        sources_figure(summary, thinking_budget),
        vote_figure(stop_and_vote),
        majority_figure(majority),
    )


def _both(base: pd.DataFrame, trained: pd.DataFrame | None) -> pd.DataFrame:
    return base if trained is None else pd.concat([base, trained], ignore_index=True)
