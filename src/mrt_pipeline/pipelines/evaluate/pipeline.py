"""Wiring of `evaluate`."""

from kedro.pipeline import Node, Pipeline

from mrt_pipeline.pipelines.evaluate.nodes import measure_budgets, report
from mrt_pipeline.pipelines.progress.nodes import label_progress
from mrt_pipeline.pipelines.progress.pipeline import LABELLING
from mrt_pipeline.pipelines.rollout.nodes import sample_evaluation_rollouts, sample_evaluation_votes


def create_pipeline(**kwargs) -> Pipeline:
    """trained_policy and the base's labelled traces -> regret, accuracy, report and figures."""
    sampling = [
        "problems",
        "trained_policy",
        "params:policy",
        "params:task",
        "params:engine",
        "params:rollout",
        "params:evaluation",
    ]
    return Pipeline(
        [
            Node(sample_evaluation_rollouts, sampling, "trained_rollouts", name="sample_trained_held_out"),
            Node(sample_evaluation_votes, sampling, "trained_samples", name="sample_trained_votes"),
            Node(
                label_progress,
                ["trained_rollouts", "problems", "trained_policy", *LABELLING],
                ["trained_episodes", "trained_anytime"],
                name="label_trained_held_out",
            ),
            Node(
                measure_budgets,
                [
                    "base_rollouts",
                    "base_episodes",
                    "base_anytime",
                    "trained_rollouts",
                    "trained_episodes",
                    "trained_anytime",
                    "params:rollout",
                    "params:evaluation",
                ],
                ["regret", "accuracy"],
                name="measure_budgets",
            ),
            Node(
                report,
                [
                    "regret",
                    "accuracy",
                    "base_samples",
                    "trained_samples",
                    "params:task",
                    "params:algorithm",
                    "params:rollout",
                    "params:seed",
                ],
                ["report", "anytime_figure", "regret_figure"],
                name="report",
            ),
        ],
        tags="evaluate",
    )
