"""Wiring of `plan`."""

from kedro.pipeline import Node, Pipeline

from mrt_pipeline.pipelines.ingest.nodes import make_problems
from mrt_pipeline.pipelines.plan.nodes import plan_training


def create_pipeline(**kwargs) -> Pipeline:
    """task -> problems, and the memory, tokens and hours that training on them would take."""
    return Pipeline(
        [
            Node(make_problems, "params:task", "planned_problems", name="make_planned_problems"),
            Node(
                plan_training,
                [
                    "planned_problems",
                    "params:policy",
                    "params:engine",
                    "params:algorithm",
                    "params:rollout",
                    "params:training",
                    "params:plan",
                ],
                "plan_report",
                name="plan_training",
            ),
        ],
        tags="plan",
    )
