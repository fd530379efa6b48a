"""Wiring of `warm_start`."""

from kedro.pipeline import Node, Pipeline

from mrt_pipeline.pipelines.warm_start.nodes import warm_start_policy


def create_pipeline(**kwargs) -> Pipeline:
    """problems -> base_policy."""
    return Pipeline(
        [
            Node(
                warm_start_policy,
                ["problems", "params:task", "params:policy", "params:rollout", "params:evaluation"],
                "base_policy",
                name="warm_start_policy",
                tags="warm_start",
            )
        ]
    )
