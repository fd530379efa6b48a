"""Nodes of `progress`."""

import hashlib

import pandas as pd

from mrt_pipeline.config import (
    EngineParams,
    EvaluationParams,
    PolicyParams,
    ProverParams,
    RolloutParams,
    TaskParams,
)
from mrt_pipeline.evaluation.evaluate import budgets_of
from mrt_pipeline.pipelines.assemble import make_engine, make_prover, make_task, open_policy
from mrt_pipeline.pipelines.reuse import once_for_base
from mrt_pipeline.rollouts.tables import anytime_table, episodes_table, problems_from_table, queries_from_table


def label_progress(
    rollouts: pd.DataFrame,
    problems: pd.DataFrame,
    policy: dict[str, str],
    policy_params: PolicyParams,
    task: TaskParams,
    engine: EngineParams,
    prover: ProverParams,
    rollout: RolloutParams,
    evaluation: EvaluationParams,
) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Ask the meta-prover for J at every episode boundary (`episodes`) and budget (`anytime`) of every trace."""

    def label() -> tuple[pd.DataFrame, pd.DataFrame]:
        game = make_task(task)
        opened = open_policy(policy, policy_params, game)
        judge = make_prover(prover, opened, game, rollout)
        budgets = budgets_of(rollout.thinking_budget, evaluation.budget_multiples)
        queries = queries_from_table(rollouts, problems_from_table(problems), opened.template, budgets)
        found = judge.success(
            make_engine(engine, opened, policy, policy_params), queries, int(rollouts["seed"].iloc[0])
        )
        return (
            episodes_table(rollouts, queries, found, opened.template, judge.name),
            anytime_table(rollouts, queries, found, opened.template, budgets),
        )

    traces = hashlib.sha256("\n".join(rollouts["text"]).encode()).hexdigest()
    return once_for_base(
        policy, label, traces=traces, engine=engine, prover=prover, rollout=rollout, evaluation=evaluation
    )
