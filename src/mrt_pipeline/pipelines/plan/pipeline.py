"""Wiring of `plan`."""

from kedro.pipeline import Pipeline

from mrt_pipeline.pipelines import stage
from mrt_pipeline.pipelines.ingest.nodes import make_problems
from mrt_pipeline.pipelines.plan.nodes import plan_training


def create_pipeline(**kwargs) -> Pipeline:
    """task -> problems, and the memory, tokens and hours that training on them would take."""
    groups = ("policy", "engine", "algorithm", "rollout", "training", "plan")
    given = ["planned_problems", *(f"params:{group}" for group in groups)]
    return stage(None, (make_problems, "params:task", "planned_problems"), (plan_training, given, "plan_report"))
