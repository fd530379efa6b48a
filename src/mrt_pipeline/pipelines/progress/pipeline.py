"""Wiring of `progress`."""

from kedro.pipeline import Pipeline

from mrt_pipeline.pipelines import ACTING, stage
from mrt_pipeline.pipelines.progress.nodes import label_progress


def create_pipeline(**kwargs) -> Pipeline:
    """rollouts -> J at their episode boundaries, and where the algorithm wants it besides."""
    learning = ["params:prover", "params:algorithm", "params:training", "params:seed"]
    given = ["rollouts", "problems", "base_policy", *ACTING, *learning]
    return stage("progress", (label_progress, given, ["episodes", "labels"]))
