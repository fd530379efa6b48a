"""Nodes of `evaluate_base` and `evaluate_trained` that sample and label held-out traces of one policy."""

from collections.abc import Sequence

import numpy as np
import pandas as pd

from mrt_pipeline.engines.base import EngineParams
from mrt_pipeline.evaluation.evaluate import budgets_of
from mrt_pipeline.evaluation.params import EvaluationParams
from mrt_pipeline.keys import reads
from mrt_pipeline.policy.policy import SavedPolicy
from mrt_pipeline.rollouts.actor import Actor
from mrt_pipeline.rollouts.label import label_rollouts
from mrt_pipeline.rollouts.linearised import sample_linearised
from mrt_pipeline.rollouts.prover import Prover, Query, force_answers
from mrt_pipeline.rollouts.rollout import Rollout, RolloutParams
from mrt_pipeline.tables import (
    anytime_table,
    episodes_table,
    problems_from_table,
    rollouts_from_table,
    rollouts_table,
    votes_table,
)
from mrt_pipeline.tasks.base import Problem, Task
from mrt_pipeline.tracking.traces import log_traces, thoughts

_SAMPLES = ["split", "n_problems", "n_sample_problems", "n_samples", "seed"]


@reads(evaluation=["budget_multiples", "split", "n_problems", "n_rollouts", "seed"])
def sample_held_out(
    problems: pd.DataFrame,
    policy: SavedPolicy,
    task: Task,
    engine: EngineParams,
    rollout: RolloutParams,
    evaluation: EvaluationParams,
) -> pd.DataFrame:
    """Traces on held-out problems, budget-forced to the largest budget; where the model wanted to stop is recorded."""
    longest = budgets_of(rollout.thinking_budget, evaluation.budget_multiples)[-1]
    actor = Actor.of(policy.open(), task, rollout.within(longest), engine)
    chosen = problems_from_table(problems, evaluation.split)[: evaluation.n_problems]
    rollouts = actor.sample(chosen, evaluation.n_rollouts, evaluation.seed, min_thinking=longest)
    return _table(rollouts, policy, actor, evaluation)


@reads(evaluation=_SAMPLES)
def take_samples(
    problems: pd.DataFrame,
    policy: SavedPolicy,
    task: Task,
    engine: EngineParams,
    rollout: RolloutParams,
    evaluation: EvaluationParams,
) -> pd.DataFrame:
    """Traces on held-out problems that stop where the model stops, within the training budget: for pass@1 and maj@k."""
    actor = Actor.of(policy.open(), task, rollout, engine)
    rollouts = actor.sample(_sample_problems(problems, evaluation), evaluation.n_samples, evaluation.seed)
    return _table(rollouts, policy, actor, evaluation)


@reads(evaluation=[*_SAMPLES, "window", "window_budget_multiple"])
def take_linearised(
    problems: pd.DataFrame,
    policy: SavedPolicy,
    task: Task,
    engine: EngineParams,
    rollout: RolloutParams,
    evaluation: EvaluationParams,
) -> pd.DataFrame:
    """The same with a window over the last episodes, so that a trace may be longer; no rows if there is no window."""
    if evaluation.window is None:
        return rollouts_table([], policy.card.name, str, evaluation.seed)
    budget = max(1, round(evaluation.window_budget_multiple * rollout.thinking_budget))
    actor = Actor.of(policy.open(), task, rollout.within(budget), engine)
    chosen, window = _sample_problems(problems, evaluation), evaluation.window
    rollouts = sample_linearised(actor, chosen, evaluation.n_samples, evaluation.seed, window, policy.card.max_length)
    return _table(rollouts, policy, actor, evaluation)


def _sample_problems(problems: pd.DataFrame, evaluation: EvaluationParams) -> list[Problem]:
    return problems_from_table(problems, evaluation.split)[: min(evaluation.n_problems, evaluation.n_sample_problems)]


def _table(
    rollouts: Sequence[Rollout], policy: SavedPolicy, actor: Actor, evaluation: EvaluationParams
) -> pd.DataFrame:
    return rollouts_table(rollouts, policy.card.name, actor.tokenizer.decode, evaluation.seed)


@reads(evaluation=["budget_multiples"])
def label_held_out(
    rollouts: pd.DataFrame,
    problems: pd.DataFrame,
    policy: SavedPolicy,
    task: Task,
    engine: EngineParams,
    rollout: RolloutParams,
    prover: Prover,
    evaluation: EvaluationParams,
) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Ask the meta-prover for J at every episode boundary (`episodes`) and budget (`anytime`) of every trace."""
    actor = Actor.of(policy.open(), task, rollout, engine)
    traces = rollouts_from_table(rollouts, problems_from_table(problems))
    budgets = budgets_of(rollout.thinking_budget, evaluation.budget_multiples)
    cuts = [np.minimum(budgets, len(trace.thought)).tolist() for trace in traces]
    labelled = label_rollouts(actor, prover, traces, int(rollouts["seed"].iloc[0]), cuts, at_natural_end=True)
    name = policy.card.name
    return episodes_table(labelled, name, prover.name), anytime_table(labelled, name, budgets)


@reads(evaluation=["n_vote_problems", "n_votes"])
def sample_forced_votes(
    rollouts: pd.DataFrame,
    problems: pd.DataFrame,
    policy: SavedPolicy,
    task: Task,
    engine: EngineParams,
    rollout: RolloutParams,
    evaluation: EvaluationParams,
) -> pd.DataFrame:
    """Several answers forced at every episode boundary of one trace of each problem, up to its natural end."""
    actor = Actor.of(policy.open(), task, rollout, engine)
    chosen = rollouts.drop_duplicates("problem_id").head(evaluation.n_vote_problems)
    traces = rollouts_from_table(chosen, problems_from_table(problems))
    queries = []
    for trace in traces:
        boundaries = trace.measured_boundaries
        queries.append(Query.about(trace, boundaries[boundaries <= trace.natural_length], at_natural_end=True))
    found = force_answers(actor, queries, evaluation.n_votes, int(rollouts["seed"].iloc[0]) + 1)
    return votes_table(actor, policy.card.name, traces, queries, found)


def show_thoughts(
    problems: pd.DataFrame,
    rollouts: pd.DataFrame,
    episodes: pd.DataFrame,
    policy: SavedPolicy,
    evaluation: EvaluationParams,
) -> None:
    """Log a few held-out rollouts as MLflow traces with a span for each episode."""
    log_traces(thoughts(rollouts, episodes, problems, evaluation.n_traces), policy.tokenizer.decode)  # type: ignore[arg-type]  # str, of one sequence
