"""Wiring of the evaluation: the same nodes measure the base policy and the trained one, each in its namespace."""

from kedro.pipeline import Pipeline

from mrt_pipeline.pipelines import ACTING, stage
from mrt_pipeline.pipelines.evaluate.nodes import (
    FIGURES,
    analyse_thinking,
    draw_figures,
    find_regret_sources,
    log_evaluation,
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

_TABLES = ("rollouts", "samples", "linearised", "episodes", "anytime", "votes")
_EVALUATION, _BUDGET = "params:evaluation", "params:rollout.thinking_budget"


def create_pipeline(**kwargs) -> Pipeline:
    """problems, base_policy -> all there is to know about the base policy, without training."""
    return held_out("base") + measures("base")


def held_out(policy: str) -> Pipeline:
    """problems, `<policy>_policy` -> its traces on held-out problems, labelled, with votes and MLflow traces.

    policy: base or trained. What is measured of a base is kept for other runs.
    """
    kept = shared if policy == "base" else (lambda function: function)
    acting = ["problems", "policy", *ACTING]
    return stage(
        f"evaluate_{policy}",
        (kept(sample_held_out), [*acting, _EVALUATION], "rollouts"),
        (kept(take_samples), [*acting, _EVALUATION], "samples"),
        (kept(take_linearised), [*acting, _EVALUATION], "linearised"),
        (kept(label_held_out), ["rollouts", *acting, "params:prover", _EVALUATION], ["episodes", "anytime"]),
        (kept(sample_forced_votes), ["rollouts", *acting, _EVALUATION], "votes"),
        (show_thoughts, ["problems", "rollouts", "episodes", "policy", _EVALUATION], None),
        inputs={"policy": f"{policy}_policy"},
        outputs={table: f"{policy}_{table}" for table in _TABLES},
    )


def measures(*policies: str) -> Pipeline:
    """The tables of `held_out`, of the base or of base and trained -> regret, accuracy, analyses, report and figures.

    They belong to the evaluation of the last one.
    """

    def each(*tables: str) -> list[str]:
        return [f"{policy}_{table}" for policy in policies for table in tables]

    sources, votes = "regret_sources_summary", ["stop_and_vote", "stopping_regret"]
    measured = ["regret", "accuracy", sources, "stopping_regret", "majority"]
    figures = [f"{name}_figure" for name in FIGURES]
    by_budget = [_BUDGET, _EVALUATION, *each("rollouts", "episodes", "anytime", "votes")]
    drawn = [_BUDGET, "regret", "accuracy", sources, "stop_and_vote", "majority", *each("episodes")]
    return stage(
        f"evaluate_{policies[-1]}",
        (measure_budgets, by_budget, ["regret", "accuracy"]),
        (measure_majority, [_EVALUATION, *each("samples", "linearised")], "majority"),
        (find_regret_sources, [_BUDGET, "base_samples", *each("episodes")], "regret_sources"),
        (analyse_thinking, [_EVALUATION, "regret_sources", *each("votes")], [sources, *votes]),
        (log_evaluation, [_BUDGET, "params:task", *measured, *each("samples")], None),
        (draw_figures, drawn, figures),
        (report, ["params:algorithm.name", _BUDGET, "params:seed", _EVALUATION, *measured, *figures], "report"),
    )
