"""Wiring of `rollout`."""

from kedro.pipeline import Pipeline

from mrt_pipeline.pipelines import ACTING, stage
from mrt_pipeline.pipelines.rollout.nodes import draw_rollouts


def create_pipeline(**kwargs) -> Pipeline:
    """problems, base_policy -> rollouts on training problems: those that training begins with."""
    given = ["problems", "base_policy", *ACTING, "params:algorithm", "params:training", "params:seed"]
    return stage("rollout", (draw_rollouts, given, "rollouts"))
