"""Nodes of `diagnose`."""

import pandas as pd

from mrt_pipeline.engines.base import EngineParams
from mrt_pipeline.evaluation.params import DiagnoseParams
from mrt_pipeline.keys import reads
from mrt_pipeline.policy.policy import SavedPolicy
from mrt_pipeline.reporting.diagnosis import diagnosis_metrics, diagnosis_report
from mrt_pipeline.rollouts.actor import Actor
from mrt_pipeline.rollouts.prover import Prover
from mrt_pipeline.rollouts.rollout import RolloutParams
from mrt_pipeline.tables import problems_from_table
from mrt_pipeline.tasks.base import Task
from mrt_pipeline.tracking.runs import log_metrics
from mrt_pipeline.trainer.params import TrainingParams


@reads(training=["group_size", "learner"])
def measure_credits(
    problems: pd.DataFrame,
    base_policy: SavedPolicy,
    task: Task,
    engine: EngineParams,
    rollout: RolloutParams,
    prover: Prover,
    training: TrainingParams,
    diagnose: DiagnoseParams,
    seed: int,
) -> pd.DataFrame:
    """Rollouts, gradients and recall of the base policy on training problems, with the weights as they are."""
    from mrt_pipeline.evaluation.diagnosis import diagnose as measure
    from mrt_pipeline.trainer.learner import Learner

    policy = base_policy.open_to_train(seed)
    settings = training.learner.model_copy(update={"kl_beta": 0.0})  # at the base the KL to it has no gradient
    return measure(
        Actor.of(policy, task, rollout, engine),
        Learner(policy.model, settings, temperature=rollout.temperature),
        prover,
        problems_from_table(problems, "train"),
        training.group_size,
        diagnose,
        seed,
    )


@reads(rollout=["thinking_budget"], training=["group_size"])
def report_diagnosis(
    diagnosis: pd.DataFrame, rollout: RolloutParams, training: TrainingParams, diagnose: DiagnoseParams
) -> str:
    """What it means, in words, and the numbers; these go to MLflow as well, recall by episodes after the find."""
    for step, metrics in diagnosis_metrics(diagnosis).items():
        log_metrics({f"diagnosis/{name}": value for name, value in metrics.items()}, step)
    return diagnosis_report(diagnosis, diagnose, training.group_size, rollout.thinking_budget)
