"""Wiring of `rollout`."""

from kedro.pipeline import Node, Pipeline

from mrt_pipeline.pipelines.rollout.nodes import sample_training_rollouts


def create_pipeline(**kwargs) -> Pipeline:
    """problems, base_policy -> rollouts on training problems."""
    return Pipeline(
        [
            Node(
                sample_training_rollouts,
                [
                    "problems",
                    "base_policy",
                    "params:policy",
                    "params:task",
                    "params:engine",
                    "params:rollout",
                    "params:seed",
                ],
                "rollouts",
                name="sample_training_rollouts",
                tags="rollout",
            )
        ]
    )
