"""Wiring of `progress`."""

from kedro.pipeline import Node, Pipeline

from mrt_pipeline.pipelines.progress.nodes import label_progress


def create_pipeline(**kwargs) -> Pipeline:
    """rollouts -> J at their episode boundaries, and where the algorithm wants it besides."""
    return Pipeline(
        [
            Node(
                label_progress,
                [
                    "rollouts",
                    "problems",
                    "base_policy",
                    "params:task",
                    "params:engine",
                    "params:prover",
                    "params:rollout",
                    "params:algorithm",
                    "params:training.answer_weight",
                    "params:seed",
                ],
                ["episodes", "labels"],
                name="label_progress",
                tags="progress",
            )
        ]
    )
