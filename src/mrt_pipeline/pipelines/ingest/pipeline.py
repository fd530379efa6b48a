"""Wiring of `ingest`."""

from kedro.pipeline import Pipeline

from mrt_pipeline.pipelines import stage
from mrt_pipeline.pipelines.ingest.nodes import make_problems


def create_pipeline(**kwargs) -> Pipeline:
    """task -> problems."""
    return stage("ingest", (make_problems, "params:task", "problems"))
