"""Wiring of `ingest`."""

from kedro.pipeline import Node, Pipeline

from mrt_pipeline.pipelines.ingest.nodes import make_problems


def create_pipeline(**kwargs) -> Pipeline:
    """task -> problems."""
    return Pipeline([Node(make_problems, "params:task", "problems", name="make_problems", tags="ingest")])
