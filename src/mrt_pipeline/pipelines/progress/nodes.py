"""Nodes of `progress`."""

import pandas as pd

from mrt_pipeline.algorithms.base import Algorithm
from mrt_pipeline.algorithms.forced_answers import with_forced_answers
from mrt_pipeline.engines.base import EngineParams
from mrt_pipeline.keys import reads
from mrt_pipeline.policy.policy import SavedPolicy
from mrt_pipeline.reuse import shared
from mrt_pipeline.rollouts.actor import Actor
from mrt_pipeline.rollouts.prover import Prover
from mrt_pipeline.rollouts.rollout import RolloutParams
from mrt_pipeline.tables import episodes_table, labels_table, problems_from_table, rollouts_from_table
from mrt_pipeline.tasks.base import Task
from mrt_pipeline.trainer.draw import label_first
from mrt_pipeline.trainer.reinforce import TrainingParams


@shared
@reads(training=["answer_weight"])
def label_progress(
    rollouts: pd.DataFrame,
    problems: pd.DataFrame,
    base_policy: SavedPolicy,
    task: Task,
    engine: EngineParams,
    rollout: RolloutParams,
    prover: Prover,
    algorithm: Algorithm,
    training: TrainingParams,
    seed: int,
) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Ask the meta-prover for J at every episode boundary (`episodes`), and where the algorithm wants it (`labels`)."""
    actor = Actor.of(base_policy.open(), task, rollout, engine)
    drawn = rollouts_from_table(rollouts, problems_from_table(problems))
    labelled = label_first(actor, with_forced_answers(algorithm, training.answer_weight), prover, drawn, seed)
    name = base_policy.card.name
    return episodes_table(labelled, name, prover.name), labels_table(labelled, name)
