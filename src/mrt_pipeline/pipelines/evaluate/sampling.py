"""Nodes of `evaluate` and `evaluate_trained` that sample and label held-out traces of one policy."""

import numpy as np
import pandas as pd

from mrt_pipeline.engines.base import EngineParams
from mrt_pipeline.evaluation.evaluate import budgets_of
from mrt_pipeline.policy.policy import SavedPolicy
from mrt_pipeline.rollouts.actor import Actor
from mrt_pipeline.rollouts.label import label_rollouts
from mrt_pipeline.rollouts.linearised import sample_linearised
from mrt_pipeline.rollouts.prover import Prover, Query, force_answers
from mrt_pipeline.rollouts.rollout import RolloutParams
from mrt_pipeline.tables import (
    anytime_table,
    episodes_table,
    problems_from_table,
    rollouts_from_table,
    rollouts_table,
    votes_table,
)
from mrt_pipeline.tasks.base import Task
from mrt_pipeline.tracking.traces import log_traces, thoughts


def sample_held_out(
    problems: pd.DataFrame,
    policy: SavedPolicy,
    task: Task,
    engine: EngineParams,
    rollout: RolloutParams,
    budget_multiples: list[float],
    split: str,
    n_problems: int,
    n_rollouts: int,
    seed: int,
) -> pd.DataFrame:
    """Traces on held-out problems, budget-forced to the largest budget; where the model wanted to stop is recorded."""
    longest = budgets_of(rollout.thinking_budget, budget_multiples)[-1]
    actor = Actor.of(policy.open(), task, rollout.within(longest), engine)
    chosen = problems_from_table(problems, split)[:n_problems]
    rollouts = actor.sample(chosen, n_rollouts, seed, min_thinking=longest)
    return rollouts_table(rollouts, policy.card.name, actor.tokenizer.decode, seed)


def take_samples(
    problems: pd.DataFrame,
    policy: SavedPolicy,
    task: Task,
    engine: EngineParams,
    rollout: RolloutParams,
    split: str,
    n_problems: int,
    n_sample_problems: int,
    n_samples: int,
    seed: int,
) -> pd.DataFrame:
    """Traces on held-out problems that stop where the model stops, within the training budget: for pass@1 and maj@k."""
    actor = Actor.of(policy.open(), task, rollout, engine)
    chosen = problems_from_table(problems, split)[: min(n_problems, n_sample_problems)]
    return rollouts_table(actor.sample(chosen, n_samples, seed), policy.card.name, actor.tokenizer.decode, seed)


def take_linearised(
    problems: pd.DataFrame,
    policy: SavedPolicy,
    task: Task,
    engine: EngineParams,
    rollout: RolloutParams,
    split: str,
    n_problems: int,
    n_sample_problems: int,
    n_samples: int,
    seed: int,
    window: int | None,
    window_budget_multiple: float,
) -> pd.DataFrame:
    """The same with a window over the last episodes, so that a trace may be longer; no rows if there is no window."""
    if window is None:
        return rollouts_table([], policy.card.name, str, seed)
    budget = max(1, round(window_budget_multiple * rollout.thinking_budget))
    actor = Actor.of(policy.open(), task, rollout.within(budget), engine)
    chosen = problems_from_table(problems, split)[: min(n_problems, n_sample_problems)]
    rollouts = sample_linearised(actor, chosen, n_samples, seed, window, policy.card.max_length)
    return rollouts_table(rollouts, policy.card.name, actor.tokenizer.decode, seed)


def label_held_out(
    rollouts: pd.DataFrame,
    problems: pd.DataFrame,
    policy: SavedPolicy,
    task: Task,
    engine: EngineParams,
    prover: Prover,
    rollout: RolloutParams,
    budget_multiples: list[float],
) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Ask the meta-prover for J at every episode boundary (`episodes`) and budget (`anytime`) of every trace."""
    actor = Actor.of(policy.open(), task, rollout, engine)
    traces = rollouts_from_table(rollouts, problems_from_table(problems))
    budgets = budgets_of(rollout.thinking_budget, budget_multiples)
    cuts = [np.minimum(budgets, len(trace.thought)) for trace in traces]
    labelled = label_rollouts(actor, prover, traces, int(rollouts["seed"].iloc[0]), cuts, at_natural_end=True)
    name = policy.card.name
    return episodes_table(labelled, name, prover.name), anytime_table(labelled, name, budgets)


def sample_forced_votes(
    rollouts: pd.DataFrame,
    problems: pd.DataFrame,
    policy: SavedPolicy,
    task: Task,
    engine: EngineParams,
    rollout: RolloutParams,
    n_vote_problems: int,
    n_votes: int,
) -> pd.DataFrame:
    """Several answers forced at every episode boundary of one trace of each problem, up to its natural end."""
    actor = Actor.of(policy.open(), task, rollout, engine)
    chosen = rollouts.drop_duplicates("problem_id").head(n_vote_problems)
    traces = rollouts_from_table(chosen, problems_from_table(problems))
    queries = []
    for trace in traces:
        boundaries = trace.measured_boundaries
        queries.append(Query.about(trace, boundaries[boundaries <= trace.natural_length], at_natural_end=True))
    found = force_answers(actor, queries, n_votes, int(rollouts["seed"].iloc[0]) + 1)
    return votes_table(actor, policy.card.name, traces, queries, found)


def show_thoughts(
    problems: pd.DataFrame, rollouts: pd.DataFrame, episodes: pd.DataFrame, policy: SavedPolicy, n_traces: int
) -> None:
    """Log a few held-out rollouts as MLflow traces with a span for each episode."""
    log_traces(thoughts(rollouts, episodes, problems, n_traces), policy.tokenizer.decode)
