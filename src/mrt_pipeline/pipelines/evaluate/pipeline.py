"""Wiring of `evaluate`, which measures the base policy, and `evaluate_trained`, which adds the trained one."""

from kedro.pipeline import Node, Pipeline

from mrt_pipeline.pipelines.evaluate.nodes import (
    analyse_thinking,
    draw_progress,
    measure_budgets,
    measure_majority,
    report,
)
from mrt_pipeline.pipelines.evaluate.sampling import (
    label_held_out,
    sample_forced_votes,
    sample_held_out,
    show_thoughts,
    take_linearised,
    take_samples,
)
from mrt_pipeline.reuse import shared

_ACTING = ["params:task", "params:engine", "params:rollout"]
_MULTIPLES = "params:evaluation.budget_multiples"
_SAMPLES = [f"params:evaluation.{name}" for name in ("split", "n_problems", "n_sample_problems", "n_samples", "seed")]
_INTERVALS = [f"params:evaluation.{name}" for name in ("confidence", "n_resamples", "seed")]
_BUDGET = "params:rollout.thinking_budget"
_REPORTED = [
    "regret",
    "accuracy",
    "regret_sources_summary",
    "stop_and_vote",
    "stopping_regret",
    "majority",
    "params:task",
    "params:algorithm.name",
    _BUDGET,
    "params:seed",
]


def held_out(policy: str) -> Pipeline:
    """problems, `<policy>_policy` -> its traces on held-out problems, labelled, with votes and MLflow traces.

    policy: base or trained. What is measured of a base is kept for other runs.
    """
    kept = shared if policy == "base" else (lambda function: function)
    given = f"{policy}_policy"
    return Pipeline(
        [
            Node(
                kept(sample_held_out),
                [
                    "problems",
                    given,
                    *_ACTING,
                    _MULTIPLES,
                    *(f"params:evaluation.{name}" for name in ("split", "n_problems", "n_rollouts", "seed")),
                ],
                f"{policy}_rollouts",
                name=f"sample_{policy}_held_out",
            ),
            Node(
                kept(take_samples),
                ["problems", given, *_ACTING, *_SAMPLES],
                f"{policy}_samples",
                name=f"take_{policy}_samples",
            ),
            Node(
                kept(take_linearised),
                [
                    "problems",
                    given,
                    *_ACTING,
                    *_SAMPLES,
                    "params:evaluation.window",
                    "params:evaluation.window_budget_multiple",
                ],
                f"{policy}_linearised",
                name=f"take_{policy}_linearised",
            ),
            Node(
                kept(label_held_out),
                [
                    f"{policy}_rollouts",
                    "problems",
                    given,
                    "params:task",
                    "params:engine",
                    "params:prover",
                    "params:rollout",
                    _MULTIPLES,
                ],
                [f"{policy}_episodes", f"{policy}_anytime"],
                name=f"label_{policy}_held_out",
            ),
            Node(
                kept(sample_forced_votes),
                [
                    f"{policy}_rollouts",
                    "problems",
                    given,
                    *_ACTING,
                    "params:evaluation.n_vote_problems",
                    "params:evaluation.n_votes",
                ],
                f"{policy}_votes",
                name=f"force_{policy}_answers",
            ),
            Node(
                show_thoughts,
                ["problems", f"{policy}_rollouts", f"{policy}_episodes", given, "params:evaluation.n_traces"],
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
            Node(
                measure_budgets,
                [_BUDGET, _MULTIPLES, *_INTERVALS, *tables],
                ["regret", "accuracy"],
                name="measure_budgets",
            ),
            Node(
                measure_majority,
                [
                    *_INTERVALS,
                    *(f"{policy}_{name}" for policy in policies for name in ("samples", "linearised")),
                ],
                "majority",
                name="measure_majority",
            ),
            Node(
                analyse_thinking,
                [_BUDGET, *_INTERVALS, "base_samples", *votes],
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
