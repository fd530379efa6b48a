"""Wiring of `compare`."""

from kedro.pipeline import Pipeline

from mrt_pipeline.pipelines import stage
from mrt_pipeline.pipelines.compare.nodes import compare_arms, draw_comparison, read_arms, report_comparison

_NAMES = ("differences", "gains", "efficiency", "sources", "stopping", "voting", "majority")
_TABLES = ["comparison", *(f"comparison_{name}" for name in _NAMES)]
_FIGURES = [f"comparison_{name}_figure" for name in ("anytime", "regret", "regret_sources", "learning", "majority")]


def create_pipeline(**kwargs) -> Pipeline:
    """Finished runs in MLflow -> tables, report and figures. Nothing is trained."""
    drawn = ["arms", "comparison", "comparison_sources", "comparison_majority"]
    return stage(
        None,
        (read_arms, "params:compare", "arms"),
        (compare_arms, ["arms", "params:compare"], _TABLES),
        (draw_comparison, drawn, _FIGURES),
        (report_comparison, _TABLES[:-1], "comparison_report"),
    )
