"""Wiring of `warm_start`."""

from kedro.pipeline import Node, Pipeline

from mrt_pipeline.pipelines.warm_start.nodes import check_fit, provide_base_policy


def create_pipeline(**kwargs) -> Pipeline:
    """problems -> base_policy."""
    return Pipeline(
        [
            Node(
                provide_base_policy,
                ["problems", "params:task", "params:policy"],
                "base_policy",
                name="provide_base_policy",
            ),
            Node(
                check_fit,
                [
                    "problems",
                    "base_policy",
                    "params:task",
                    "params:policy",
                    "params:prover",
                    "params:rollout",
                    "params:evaluation.budget_multiples",
                    "params:evaluation.split",
                    "params:evaluation.n_problems",
                    "params:evaluation.window",
                ],
                None,
                name="check_fit",
            ),
        ],
        tags="warm_start",
    )
