"""Wiring of `progress`."""

from kedro.pipeline import Node, Pipeline

from mrt_pipeline.pipelines.progress.nodes import label_progress

LABELLING = ["params:policy", "params:task", "params:engine", "params:prover", "params:rollout", "params:evaluation"]


def create_pipeline(**kwargs) -> Pipeline:
    """rollouts -> episodes and anytime curves."""
    return Pipeline(
        [
            Node(
                label_progress,
                ["rollouts", "problems", "base_policy", *LABELLING],
                ["episodes", "anytime"],
                name="label_training_progress",
                tags="progress",
            ),
        ]
    )
