"""Wiring of `rollout`."""

from kedro.pipeline import Node, Pipeline

from mrt_pipeline.pipelines.rollout.nodes import (
    sample_evaluation_rollouts,
    sample_evaluation_votes,
    sample_training_rollouts,
)


def create_pipeline(**kwargs) -> Pipeline:
    """problems, base_policy -> rollouts on training problems, base_rollouts and base_samples on held-out ones."""
    sampling = ["problems", "base_policy", "params:policy", "params:task", "params:engine", "params:rollout"]
    return Pipeline(
        [
            Node(
                sample_training_rollouts,
                [*sampling, "params:seed"],
                "rollouts",
                name="sample_training_rollouts",
                tags="rollout",
            ),
            Node(
                sample_evaluation_rollouts,
                [*sampling, "params:evaluation"],
                "base_rollouts",
                name="sample_base_held_out",
                tags="rollout",
            ),
            Node(
                sample_evaluation_votes,
                [*sampling, "params:evaluation"],
                "base_samples",
                name="sample_base_votes",
                tags="rollout",
            ),
        ]
    )
