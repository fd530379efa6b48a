"""Wiring of `rollout`."""

from kedro.pipeline import Node, Pipeline

from mrt_pipeline.pipelines.rollout.nodes import draw_rollouts


def create_pipeline(**kwargs) -> Pipeline:
    """problems, base_policy -> rollouts on training problems: those that training begins with."""
    return Pipeline(
        [
            Node(
                draw_rollouts,
                [
                    "problems",
                    "base_policy",
                    "params:task",
                    "params:engine",
                    "params:rollout",
                    "params:algorithm",
                    "params:training.groups",
                    "params:training.group_size",
                    "params:training.forced_fraction",
                    "params:seed",
                ],
                "rollouts",
                name="draw_rollouts",
                tags="rollout",
            )
        ]
    )
