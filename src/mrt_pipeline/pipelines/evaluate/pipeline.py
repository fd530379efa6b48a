"""Wiring of `evaluate`, which measures the base policy, and `evaluate_trained`, which adds the trained one."""

from kedro.pipeline import Node, Pipeline

from mrt_pipeline.pipelines.evaluate.nodes import (
    analyse_thinking,
    draw_progress,
    measure_budgets,
    measure_majority,
    report,
    sample_forced_votes,
    show_thoughts,
)
from mrt_pipeline.pipelines.progress.nodes import label_progress
from mrt_pipeline.pipelines.progress.pipeline import LABELLING
from mrt_pipeline.pipelines.rollout.nodes import sample_evaluation_rollouts, take_linearised, take_samples

_SAMPLING = ["params:policy", "params:task", "params:engine", "params:rollout", "params:evaluation"]
_MEASURED = ["params:rollout", "params:evaluation"]
_REPORTED = [
    "regret",
    "accuracy",
    "regret_sources_summary",
    "stop_and_vote",
    "stopping_regret",
    "majority",
    "params:task",
    "params:algorithm",
    "params:rollout",
    "params:seed",
]


def held_out(policy: str) -> Pipeline:
    """problems, `<policy>_policy` -> its traces on held-out problems, labelled, with votes and MLflow traces.

    policy: base or trained.
    """
    ref = f"{policy}_policy"
    return Pipeline(
        [
            Node(
                sample_evaluation_rollouts,
                ["problems", ref, *_SAMPLING],
                f"{policy}_rollouts",
                name=f"sample_{policy}_held_out",
            ),
            Node(
                take_samples,
                ["problems", ref, *_SAMPLING],
                f"{policy}_samples",
                name=f"take_{policy}_samples",
            ),
            Node(
                take_linearised,
                ["problems", ref, *_SAMPLING],
                f"{policy}_linearised",
                name=f"take_{policy}_linearised",
            ),
            Node(
                label_progress,
                [f"{policy}_rollouts", "problems", ref, *LABELLING],
                [f"{policy}_episodes", f"{policy}_anytime"],
                name=f"label_{policy}_held_out",
            ),
            Node(
                sample_forced_votes,
                [f"{policy}_rollouts", "problems", ref, *_SAMPLING],
                f"{policy}_votes",
                name=f"force_{policy}_answers",
            ),
            Node(
                show_thoughts,
                [
                    "problems",
                    f"{policy}_rollouts",
                    f"{policy}_episodes",
                    ref,
                    "params:policy",
                    "params:evaluation",
                ],
                None,
                name=f"show_{policy}_thoughts",
            ),
        ],
        tags="evaluate",
    )


def measures(*policies: str) -> Pipeline:
    """The tables of `held_out`, of one policy or two -> regret, accuracy, analyses, report and figures."""
    tables = [f"{policy}_{name}" for policy in policies for name in ("rollouts", "episodes", "anytime", "votes")]
    votes = [f"{policy}_{name}" for policy in policies for name in ("episodes", "votes")]
    return Pipeline(
        [
            Node(measure_budgets, [*_MEASURED, *tables], ["regret", "accuracy"], name="measure_budgets"),
            Node(
                measure_majority,
                [
                    "params:evaluation",
                    *(f"{policy}_{name}" for policy in policies for name in ("samples", "linearised")),
                ],
                "majority",
                name="measure_majority",
            ),
            Node(
                analyse_thinking,
                [*_MEASURED, "base_samples", *votes],
                ["regret_sources", "regret_sources_summary", "stop_and_vote", "stopping_regret"],
                name="analyse_thinking",
            ),
            Node(
                draw_progress,
                [f"{policy}_episodes" for policy in policies],
                "progress_figure",
                name="draw_progress",
            ),
            Node(
                report,
                [*_REPORTED, *(f"{policy}_samples" for policy in policies)],
                ["report", "anytime_figure", "regret_figure", "sources_figure", "vote_figure", "majority_figure"],
                name="report",
            ),
        ],
        tags="evaluate",
    )


def create_pipeline(**kwargs) -> Pipeline:
    """problems, base_policy -> all there is to know about the base policy, without training."""
    return held_out("base") + measures("base")


def create_trained_pipeline(**kwargs) -> Pipeline:
    """trained_policy and the base's tables -> both side by side."""
    return held_out("trained") + measures("base", "trained")
