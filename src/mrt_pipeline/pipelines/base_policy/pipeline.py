"""Wiring of `base_policy`."""

from kedro.pipeline import Pipeline

from mrt_pipeline.pipelines import stage
from mrt_pipeline.pipelines.base_policy.nodes import provide_base_policy


def create_pipeline(**kwargs) -> Pipeline:
    """problems -> base_policy. The parameters after the policy are only looked at, to refuse what does not fit."""
    groups = ("task", "policy", "prover", "rollout", "evaluation")
    given = ["problems", *(f"params:{group}" for group in groups)]
    return stage("base_policy", (provide_base_policy, given, "base_policy"))
