"""Nodes of `evaluate`; the trained policy is sampled and labelled by the nodes of `rollout` and `progress`."""

import pandas as pd
import plotly.graph_objects as go

from mrt_pipeline.config import AlgorithmParams, EvaluationParams, RolloutParams, TaskParams
from mrt_pipeline.evaluation.evaluate import accuracy_by_budget, budgets_of, regret_by_budget
from mrt_pipeline.evaluation.majority import majority_by_problem
from mrt_pipeline.pipelines.assemble import make_task
from mrt_pipeline.reporting.figures import budget_figure
from mrt_pipeline.reporting.summary import budget_metrics, markdown_report
from mrt_pipeline.tracking.runs import log_metrics


def measure_budgets(
    base_rollouts: pd.DataFrame,
    base_episodes: pd.DataFrame,
    base_anytime: pd.DataFrame,
    trained_rollouts: pd.DataFrame,
    trained_episodes: pd.DataFrame,
    trained_anytime: pd.DataFrame,
    rollout: RolloutParams,
    evaluation: EvaluationParams,
) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Normalised regret and accuracy of base and trained policy at every budget, with bootstrap intervals."""
    budgets = budgets_of(rollout.thinking_budget, evaluation.budget_multiples)
    bootstrap = (evaluation.confidence, evaluation.n_resamples, evaluation.seed)
    regret = regret_by_budget(pd.concat([base_episodes, trained_episodes]), budgets, *bootstrap)
    accuracy = accuracy_by_budget(
        pd.concat([base_anytime, trained_anytime]), pd.concat([base_rollouts, trained_rollouts]), budgets, *bootstrap
    )
    return regret, accuracy


def report(
    regret: pd.DataFrame,
    accuracy: pd.DataFrame,
    base_samples: pd.DataFrame,
    trained_samples: pd.DataFrame,
    task: TaskParams,
    algorithm: AlgorithmParams,
    rollout: RolloutParams,
    seed: int,
) -> tuple[str, go.Figure, go.Figure]:
    """The closing table and the figures; the numbers go to MLflow, with the budget as the step, or k of maj@k."""
    measured = make_task(task).trace_metrics
    for name, points in budget_metrics(regret, accuracy).items():
        for point in points:
            log_metrics({f"evaluation/{name}": point["value"]}, int(point["step"]))
    for suffix, samples in (("", trained_samples), ("_base", base_samples)):
        for k, value in majority_by_problem(samples).groupby("k")["accuracy"].mean().items():
            log_metrics({f"evaluation/majority{suffix}": value}, int(k))
        found = measured(samples["text"].tolist())
        log_metrics({f"evaluation/{name}{suffix}": value for name, value in found.items()}, rollout.thinking_budget)
    title = f"{algorithm.root.name}, seed {seed}, training budget {rollout.thinking_budget} thinking tokens"
    return (
        markdown_report(regret, accuracy, title),
        budget_figure(accuracy, "accuracy", rollout.thinking_budget),
        budget_figure(regret, "regret", rollout.thinking_budget),
    )
