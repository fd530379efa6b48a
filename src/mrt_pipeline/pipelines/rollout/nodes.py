"""Nodes of `rollout`."""

import pandas as pd

from mrt_pipeline.config import CountdownTask, EvaluationParams, RolloutParams, TorchEngineParams
from mrt_pipeline.evaluation.evaluate import budgets_of
from mrt_pipeline.pipelines.assemble import make_engine, make_rollout_settings, make_task, open_policy
from mrt_pipeline.rollouts.rollout import sample_rollouts
from mrt_pipeline.rollouts.tables import problems_from_table, rollouts_table


def sample_training_rollouts(
    problems: pd.DataFrame,
    policy: dict[str, str],
    task: CountdownTask,
    engine: TorchEngineParams,
    rollout: RolloutParams,
    seed: int,
) -> pd.DataFrame:
    """Traces of the base policy on training problems, stopping where the model stops."""
    opened = open_policy(policy)
    chosen = problems_from_table(problems, "train")[: rollout.n_problems]
    rollouts = sample_rollouts(
        make_engine(engine, opened),
        make_task(task),
        opened.tokenizer,
        opened.template,
        chosen,
        make_rollout_settings(rollout),
        rollout.n_rollouts,
        seed,
    )
    return rollouts_table(rollouts, policy["name"], opened.tokenizer.decode, seed)


def sample_test_rollouts(
    problems: pd.DataFrame,
    policy: dict[str, str],
    task: CountdownTask,
    engine: TorchEngineParams,
    rollout: RolloutParams,
    evaluation: EvaluationParams,
) -> pd.DataFrame:
    """Traces on held-out problems, budget-forced to the largest budget; where the model wanted to stop is recorded."""
    opened = open_policy(policy)
    chosen = problems_from_table(problems, "test")[: evaluation.n_problems]
    longest = budgets_of(rollout.thinking_budget, evaluation.budget_multiples)[-1]
    rollouts = sample_rollouts(
        make_engine(engine, opened),
        make_task(task),
        opened.tokenizer,
        opened.template,
        chosen,
        make_rollout_settings(rollout, longest),
        evaluation.n_rollouts,
        evaluation.seed,
        min_thinking=longest,
    )
    return rollouts_table(rollouts, policy["name"], opened.tokenizer.decode, evaluation.seed)
