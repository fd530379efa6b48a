"""Nodes of `evaluate` and `evaluate_trained` that measure what `sampling.py` has sampled and labelled.

Tables come policy by policy, the base's first: of one policy, or of two.
"""

from collections.abc import Sequence

import pandas as pd
import plotly.graph_objects as go

from mrt_pipeline.evaluation.evaluate import accuracy_by_budget, budgets_of, regret_by_all_tokens, regret_by_budget
from mrt_pipeline.evaluation.intervals import Intervals
from mrt_pipeline.evaluation.majority import majority_by_policy
from mrt_pipeline.evaluation.params import EvaluationParams
from mrt_pipeline.evaluation.regret_sources import regret_sources, summarize_sources
from mrt_pipeline.evaluation.stop_and_vote import stopping_regret, vote_accuracy
from mrt_pipeline.keys import reads
from mrt_pipeline.reporting.figures import budget_figure, majority_figure, progress_figure, sources_figure, vote_figure
from mrt_pipeline.reporting.summary import evaluation_metrics, markdown_report
from mrt_pipeline.tasks.base import Task
from mrt_pipeline.tracking.runs import log_metrics

FIGURES = ["anytime", "regret", "progress", "regret_sources", "stop_and_vote", "majority"]
"""What `draw_figures` gives, by the names of the files."""
_BOOTSTRAP = ["confidence", "n_resamples", "seed"]


@reads(evaluation=["budget_multiples", *_BOOTSTRAP])
def measure_budgets(
    thinking_budget: int, evaluation: EvaluationParams, *tables: pd.DataFrame
) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Regret and accuracy of each policy at every budget, and trained minus base, with bootstrap intervals.

    tables: rollouts, episodes, anytime and votes.
    """
    rollouts, episodes, anytime, votes = _side_by_side(tables, 4)
    budgets, intervals = budgets_of(thinking_budget, evaluation.budget_multiples), _intervals(evaluation)
    by_thinking = regret_by_budget(episodes, budgets, intervals)
    by_all = regret_by_all_tokens(votes, rollouts, budgets, intervals)
    accuracy = accuracy_by_budget(anytime, rollouts, budgets, intervals)
    return pd.concat([by_thinking, by_all], ignore_index=True), accuracy


@reads(evaluation=_BOOTSTRAP)
def measure_majority(evaluation: EvaluationParams, *tables: pd.DataFrame) -> pd.DataFrame:
    """maj@k against the tokens of k samples of each policy. tables: samples, and linearised ones."""
    samples, linearised = _side_by_side(tables, 2)
    return majority_by_policy(samples, linearised, _intervals(evaluation))


def find_regret_sources(thinking_budget: int, base_samples: pd.DataFrame, *episodes: pd.DataFrame) -> pd.DataFrame:
    """Where regret comes from, trace by trace; the base's samples say how difficult a problem is."""
    return regret_sources(_all(episodes), base_samples, thinking_budget)


@reads(evaluation=_BOOTSTRAP)
def analyse_thinking(
    evaluation: EvaluationParams, sources: pd.DataFrame, *votes: pd.DataFrame
) -> tuple[pd.DataFrame, pd.DataFrame, pd.DataFrame]:
    """Where regret comes from in the mean; [maj@p]_j against direct answers; stopping regret."""
    cast, intervals = _all(votes), _intervals(evaluation)
    return summarize_sources(sources, intervals), vote_accuracy(cast, intervals), stopping_regret(cast, intervals)


def log_evaluation(
    thinking_budget: int,
    task: Task,
    regret: pd.DataFrame,
    accuracy: pd.DataFrame,
    summary: pd.DataFrame,
    stopping: pd.DataFrame,
    majority: pd.DataFrame,
    *samples: pd.DataFrame,
) -> None:
    """The numbers go to MLflow, with the budget as the step, or k of maj@k; and what the task measures of samples."""
    by_step = evaluation_metrics(regret, accuracy, summary, stopping, majority, thinking_budget)
    for step, metrics in by_step.items():
        log_metrics({f"evaluation/{name}": value for name, value in metrics.items()}, step)
    for suffix, table in zip(("_base", ""), samples, strict=False):
        found = task.trace_metrics(table["text"].tolist())
        log_metrics({f"evaluation/{name}{suffix}": value for name, value in found.items()}, thinking_budget)


def draw_figures(
    thinking_budget: int,
    regret: pd.DataFrame,
    accuracy: pd.DataFrame,
    summary: pd.DataFrame,
    stop_and_vote: pd.DataFrame,
    majority: pd.DataFrame,
    *episodes: pd.DataFrame,
) -> tuple[go.Figure, ...]:
    """The figures, in the order of `FIGURES`."""
    return (
        budget_figure(accuracy, "accuracy", thinking_budget),
        budget_figure(regret[regret["definition"] == "paper"], "regret", thinking_budget),
        progress_figure(_all(episodes)),
        sources_figure(summary, thinking_budget),
        vote_figure(stop_and_vote),
        majority_figure(majority),
    )


@reads(evaluation=["confidence"])
def report(
    algorithm: str,
    thinking_budget: int,
    seed: int,
    evaluation: EvaluationParams,
    regret: pd.DataFrame,
    accuracy: pd.DataFrame,
    summary: pd.DataFrame,
    stopping: pd.DataFrame,
    majority: pd.DataFrame,
    *figures: go.Figure,
) -> str:
    """The verdict and the tables, and where the figures are."""
    measured = (regret, accuracy, summary, stopping, majority)
    tables = markdown_report(*measured, algorithm, thinking_budget, seed, evaluation.confidence)
    links = [
        f"- [{figure.layout.title.text}](figures/{name}.html)" for name, figure in zip(FIGURES, figures, strict=True)
    ]
    return "\n".join([tables, "Figures:", "", *links, ""])


def _side_by_side(tables: Sequence[pd.DataFrame], n: int) -> list[pd.DataFrame]:
    """n tables of each policy -> n tables of all."""
    return [_all(tables[i::n]) for i in range(n)]


def _all(tables: Sequence[pd.DataFrame]) -> pd.DataFrame:
    return pd.concat(tables, ignore_index=True)


def _intervals(evaluation: EvaluationParams) -> Intervals:
    return Intervals(evaluation.confidence, evaluation.n_resamples, evaluation.seed)
