"""Wiring of `diagnose`."""

from kedro.pipeline import Pipeline

from mrt_pipeline.pipelines import ACTING, stage
from mrt_pipeline.pipelines.diagnose.nodes import measure_credits, report_diagnosis


def create_pipeline(**kwargs) -> Pipeline:
    """problems, base_policy -> diagnosis and its report. Nothing is trained."""
    learning = ["params:prover", "params:training", "params:diagnose"]
    given = ["problems", "base_policy", *ACTING, *learning, "params:seed"]
    return stage(
        "diagnose",
        (measure_credits, given, "diagnosis"),
        (report_diagnosis, ["diagnosis", "params:rollout", *learning[1:]], "diagnosis_report"),
    )
