"""Nodes of `rollout`."""

import hashlib
from dataclasses import asdict

import pandas as pd

from mrt_pipeline.config import EngineParams, EvaluationParams, PolicyParams, RolloutParams, TaskParams
from mrt_pipeline.evaluation.evaluate import budgets_of
from mrt_pipeline.pipelines.assemble import make_engine, make_rollout_settings, make_task, open_policy
from mrt_pipeline.pipelines.reuse import once_for_base
from mrt_pipeline.rollouts.rollout import RolloutSettings, sample_rollouts
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
        chosen, policy, policy_params, task, engine, settings, evaluation.n_rollouts, evaluation.seed, longest
    )


def sample_evaluation_votes(
    problems: pd.DataFrame,
    policy: dict[str, str],
    policy_params: PolicyParams,
    task: TaskParams,
    engine: EngineParams,
    rollout: RolloutParams,
    evaluation: EvaluationParams,
) -> pd.DataFrame:
    """Traces on held-out problems that stop where the model stops, within the training budget: for pass@1 and maj@k."""
    chosen = problems_from_table(problems, evaluation.split)[: min(evaluation.n_problems, evaluation.n_sample_problems)]
    settings = make_rollout_settings(rollout)
    return _sample_table(chosen, policy, policy_params, task, engine, settings, evaluation.n_samples, evaluation.seed)


def _sample_table(
    problems: list[Problem],
    policy: dict[str, str],
    policy_params: PolicyParams,
    task: TaskParams,
    engine: EngineParams,
    settings: RolloutSettings,
    n: int,
    seed: int,
    min_thinking: int = 0,
) -> pd.DataFrame:
    def sample() -> tuple[pd.DataFrame]:
        game = make_task(task)
        opened = open_policy(policy, policy_params, game)
        rollouts = sample_rollouts(
            make_engine(engine, opened, policy, policy_params),
            game,
            opened.tokenizer,
            opened.template,
            problems,
            settings,
            n,
            seed,
            min_thinking,
        )
        return (rollouts_table(rollouts, policy["name"], opened.tokenizer.decode, seed),)

    asked = hashlib.sha256("\n".join(problem.problem_id for problem in problems).encode()).hexdigest()
    how = {**asdict(settings), "n": n, "seed": seed, "min_thinking": min_thinking}
    (table,) = once_for_base(policy, sample, problems=asked, engine=engine, how=str(how))
    return table
