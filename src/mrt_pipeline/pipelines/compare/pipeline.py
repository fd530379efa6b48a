"""Wiring of `compare`."""

from kedro.pipeline import Node, Pipeline

from mrt_pipeline.pipelines.compare.nodes import compare_arms, compare_thinking, read_arms, report_comparison

_TABLES = ["comparison", "comparison_differences", "comparison_gains", "comparison_efficiency"]
_THINKING = ["comparison_sources", "comparison_stopping", "comparison_majority", "comparison_voting"]


def create_pipeline(**kwargs) -> Pipeline:
    """Finished runs in MLflow -> tables, report and figures. Nothing is trained."""
    return Pipeline(
        [
            Node(read_arms, "params:compare", "arms", name="read_arms"),
            Node(compare_arms, ["arms", "params:compare"], _TABLES, name="compare_arms"),
            Node(compare_thinking, ["arms", "params:compare"], _THINKING, name="compare_thinking"),
            Node(
                report_comparison,
                ["arms", *_TABLES, *_THINKING],
                [
                    "comparison_report",
                    "comparison_anytime_figure",
                    "comparison_regret_figure",
                    "comparison_sources_figure",
                    "comparison_learning_figure",
                    "comparison_majority_figure",
                ],
                name="report_comparison",
            ),
        ],
        tags="compare",
    )
