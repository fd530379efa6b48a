"""Nodes of `rollout`."""

import pandas as pd

from mrt_pipeline.algorithms.base import Algorithm
from mrt_pipeline.engines.base import EngineParams
from mrt_pipeline.keys import reads
from mrt_pipeline.policy.policy import SavedPolicy
from mrt_pipeline.reuse import shared
from mrt_pipeline.rollouts.actor import Actor
from mrt_pipeline.rollouts.rollout import RolloutParams
from mrt_pipeline.tables import problems_from_table, rollouts_table
from mrt_pipeline.tasks.base import Task
from mrt_pipeline.trainer.draw import DrawSize, draw_first
from mrt_pipeline.trainer.reinforce import TrainingParams


@shared
@reads(algorithm=["prefixes_every"], training=["groups", "group_size", "forced_fraction"])
def draw_rollouts(
    problems: pd.DataFrame,
    base_policy: SavedPolicy,
    task: Task,
    engine: EngineParams,
    rollout: RolloutParams,
    algorithm: Algorithm,
    training: TrainingParams,
    seed: int,
) -> pd.DataFrame:
    """What training begins with: the rollouts of its first step, or the thoughts its first stale prefixes are cut from.

    The base policy draws them, on training problems.
    """
    actor = Actor.of(base_policy.open(), task, rollout, engine)
    size = DrawSize(training.groups, training.group_size, training.forced_fraction)
    drawn = draw_first(actor, algorithm, problems_from_table(problems, "train"), size, seed)
    return rollouts_table(drawn, base_policy.card.name, actor.tokenizer.decode, seed)
