"""Nodes of `rollout`."""

import hashlib
from collections.abc import Callable
from dataclasses import asdict

import pandas as pd

from mrt_pipeline.config import EngineParams, EvaluationParams, PolicyParams, RolloutParams, TaskParams
from mrt_pipeline.evaluation.evaluate import budgets_of
from mrt_pipeline.pipelines.assemble import make_engine, make_rollout_settings, make_task, open_policy
from mrt_pipeline.pipelines.reuse import once_for_base
from mrt_pipeline.rollouts.linearised import sample_linearised
from mrt_pipeline.rollouts.rollout import Rollout, RolloutSettings, sample_rollouts
from mrt_pipeline.rollouts.tables import problems_from_table, rollouts_table
from mrt_pipeline.tasks.base import Problem


def sample_training_rollouts(
    problems: pd.DataFrame,
    policy: dict[str, str],
    policy_params: PolicyParams,
    task: TaskParams,
    engine: EngineParams,
    rollout: RolloutParams,
    seed: int,
) -> pd.DataFrame:
    """Traces of the base policy on training problems, stopping where the model stops."""
    chosen = problems_from_table(problems, "train")[: rollout.n_problems]
    settings = make_rollout_settings(rollout)
    return _sample_table(chosen, policy, policy_params, task, engine, settings, rollout.n_rollouts, seed)


def sample_evaluation_rollouts(
    problems: pd.DataFrame,
    policy: dict[str, str],
    policy_params: PolicyParams,
    task: TaskParams,
    engine: EngineParams,
    rollout: RolloutParams,
    evaluation: EvaluationParams,
) -> pd.DataFrame:
    """Traces on held-out problems, budget-forced to the largest budget; where the model wanted to stop is recorded."""
    chosen = problems_from_table(problems, evaluation.split)[: evaluation.n_problems]
    longest = budgets_of(rollout.thinking_budget, evaluation.budget_multiples)[-1]
    settings = make_rollout_settings(rollout, longest)
    return _sample_table(
        chosen,
        policy,
        policy_params,
        task,
        engine,
        settings,
        evaluation.n_rollouts,
        evaluation.seed,
        min_thinking=longest,
    )


def take_samples(
    problems: pd.DataFrame,
    policy: dict[str, str],
    policy_params: PolicyParams,
    task: TaskParams,
    engine: EngineParams,
    rollout: RolloutParams,
    evaluation: EvaluationParams,
) -> pd.DataFrame:
    """Traces on held-out problems that stop where the model stops, within the training budget: for pass@1 and maj@k."""
    chosen = _sample_problems(problems, evaluation)
    settings = make_rollout_settings(rollout)
    return _sample_table(chosen, policy, policy_params, task, engine, settings, evaluation.n_samples, evaluation.seed)


def take_linearised(
    problems: pd.DataFrame,
    policy: dict[str, str],
    policy_params: PolicyParams,
    task: TaskParams,
    engine: EngineParams,
    rollout: RolloutParams,
    evaluation: EvaluationParams,
) -> pd.DataFrame:
    """The same with a window over the last episodes, so that a trace may be longer; no rows if there is no window."""
    if evaluation.window is None:
        return rollouts_table([], policy["name"], None, evaluation.seed)
    budget = max(1, round(evaluation.window_budget_multiple * rollout.thinking_budget))
    return _sample_table(
        _sample_problems(problems, evaluation),
        policy,
        policy_params,
        task,
        engine,
        make_rollout_settings(rollout, budget),
        evaluation.n_samples,
        evaluation.seed,
        sample_linearised,
        window=evaluation.window,
        max_length=policy_params.root.max_length,
    )


def _sample_problems(problems: pd.DataFrame, evaluation: EvaluationParams) -> list[Problem]:
    n = min(evaluation.n_problems, evaluation.n_sample_problems)
    return problems_from_table(problems, evaluation.split)[:n]


def _sample_table(
    problems: list[Problem],
    policy: dict[str, str],
    policy_params: PolicyParams,
    task: TaskParams,
    engine: EngineParams,
    settings: RolloutSettings,
    n: int,
    seed: int,
    sampler: Callable[..., list[Rollout]] = sample_rollouts,
    **how: int,
) -> pd.DataFrame:
    """Rollouts as a table. how: further arguments of the sampler."""

    def sample() -> tuple[pd.DataFrame]:
        game = make_task(task)
        opened = open_policy(policy, policy_params, game)
        rollouts = sampler(
            make_engine(engine, opened, policy, policy_params),
            game,
            opened.tokenizer,
            opened.template,
            problems,
            settings,
            n,
            seed,
            **how,
        )
        return (rollouts_table(rollouts, policy["name"], opened.tokenizer.decode, seed),)

    asked = hashlib.sha256("\n".join(problem.problem_id for problem in problems).encode()).hexdigest()
    decided = {**asdict(settings), "n": n, "seed": seed, **how}
    (table,) = once_for_base(policy, sample, problems=asked, engine=engine, how=str(decided))
    return table
