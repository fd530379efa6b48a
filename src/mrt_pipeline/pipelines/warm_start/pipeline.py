"""Wiring of `warm_start`."""

from kedro.pipeline import Node, Pipeline

from mrt_pipeline.pipelines.warm_start.nodes import provide_base_policy


def create_pipeline(**kwargs) -> Pipeline:
    """problems -> base_policy. The parameters after the policy are only looked at, to refuse what does not fit."""
    return Pipeline(
        [
            Node(
                provide_base_policy,
                [
                    "problems",
                    "params:task",
                    "params:policy",
                    "params:prover",
                    "params:rollout",
                    "params:evaluation.budget_multiples",
                    "params:evaluation.split",
                    "params:evaluation.n_problems",
                    "params:evaluation.window",
                ],
                "base_policy",
                name="provide_base_policy",
                tags="warm_start",
            )
        ]
    )
