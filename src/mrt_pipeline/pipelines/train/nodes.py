"""Nodes of `train`."""

import logging
from dataclasses import replace
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
import pandas as pd

from mrt_pipeline.algorithms.base import Algorithm
from mrt_pipeline.algorithms.forced_answers import with_forced_answers
from mrt_pipeline.bars import bar
from mrt_pipeline.engines.base import EngineParams
from mrt_pipeline.evaluation.base_check import check_base, closed_by_the_policy, look_at_base, natural_rollouts
from mrt_pipeline.keys import call_key, reads
from mrt_pipeline.policy.language_model import has_adapters
from mrt_pipeline.policy.policy import Policy, SavedPolicy
from mrt_pipeline.reporting.samples import render_traces
from mrt_pipeline.rollouts.actor import Actor
from mrt_pipeline.rollouts.label import LabelledRollout
from mrt_pipeline.rollouts.prover import Prover, Query
from mrt_pipeline.rollouts.rollout import RolloutParams
from mrt_pipeline.tables import labelled_from_tables, problems_from_table, rollouts_from_table
from mrt_pipeline.tasks.base import Task
from mrt_pipeline.tracking.runs import log_metrics, log_model, log_text
from mrt_pipeline.trainer.checkpoint import CHECKPOINTS
from mrt_pipeline.trainer.learner import Learner
from mrt_pipeline.trainer.reinforce import TrainingParams, reinforce

logger = logging.getLogger(__name__)


def look_before_training(
    rollouts: pd.DataFrame,
    episodes: pd.DataFrame,
    problems: pd.DataFrame,
    base_policy: SavedPolicy,
    task: Task,
    engine: EngineParams,
    rollout: RolloutParams,
    prover: Prover,
) -> dict[str, float]:
    """What RL will find on the base policy's training traces; warns of what would spoil it, refuses the hopeless."""
    template, stopped, natural = base_policy.template, None, natural_rollouts(rollouts)
    closed = closed_by_the_policy(natural)
    if template.close != template.stop_phrase and len(closed):
        ends = rollouts_from_table(closed, problems_from_table(problems))
        queries = [Query(r.problem, r.prompt, r.thought, np.array([len(r.thought)])) for r in ends]
        actor = Actor.of(base_policy.open(), task, rollout, engine)
        asked = prover.success(actor, queries, int(closed["seed"].iloc[0]))
        stopped = [float(success.mean[0]) for success in asked]
    found = look_at_base(natural, stopped)
    measured = {**found, **task.trace_metrics(natural["text"].tolist())}
    if found:
        steps = episodes[~episodes["stopped"]].merge(natural[["problem_id", "rollout_id"]])
        measured["absolute_progress"] = float(steps["progress"].abs().mean())
    signal = {f"base/{name}": value for name, value in measured.items()}
    log_metrics(signal, 0)
    for warning in check_base(found):
        logger.warning("Look before you train: %s", warning)
    return signal


@reads(learning_signal=[])
def train_policy(
    rollouts: pd.DataFrame,
    episodes: pd.DataFrame,
    labels: pd.DataFrame,
    learning_signal: dict[str, float],
    problems: pd.DataFrame,
    base_policy: SavedPolicy,
    task: Task,
    engine: EngineParams,
    rollout: RolloutParams,
    prover: Prover,
    algorithm: Algorithm,
    training: TrainingParams,
    seed: int,
) -> tuple[Policy, pd.DataFrame]:
    """Train the policy with the chosen credit assignment, beginning with the labelled rollouts.

    Goes on from its checkpoint if it was interrupted. The first row of its history holds what was seen before.
    """
    key = call_key(
        train_policy,
        *(rollouts, episodes, labels, learning_signal, problems, base_policy),
        *(task, engine, rollout, prover, algorithm, training, seed),
    )
    policy = base_policy.open_to_train(seed)
    reference = None
    if training.learner.kl_beta > 0 and (base_policy.has_adapters or not has_adapters(policy.model)):
        reference = base_policy.open_apart().model.eval()
    actor = Actor.of(policy, task, rollout, engine)
    checkpoint = CHECKPOINTS / key
    if checkpoint.exists():
        logger.info("Training goes on from the checkpoint in %s", checkpoint)

    with bar(total=training.sampled_tokens, desc=algorithm.name, unit="token", unit_scale=True) as trained_tokens:

        def log(metrics: dict[str, float], step: int) -> None:
            log_metrics(metrics, step)
            if "train/reward" in metrics:
                sampled = min(int(metrics["train/sampled_tokens"]), training.sampled_tokens)
                trained_tokens.set_postfix(step=step, reward=f"{metrics['train/reward']:.2f}", refresh=False)
                trained_tokens.update(sampled - trained_tokens.n)
            if "validation/regret" in metrics:
                found = [metrics[f"validation/{name}"] for name in ("accuracy", "regret", "thinking_tokens")]
                logger.info("Step %d: validation accuracy %.3f, regret %.3f, thinking tokens %.0f", step, *found)
            if step in live and training.log_checkpoints:
                _log_policy(policy, f"step_{step}", step, metrics)

        live = set()  # steps made now, not replayed from a checkpoint

        def show(traces: list[LabelledRollout], step: int) -> None:
            live.add(step)
            decode = policy.tokenizer.decode
            log_text(render_traces(traces[:8], decode), f"samples/step_{step:05d}.txt")  # type: ignore[arg-type]

        history = reinforce(
            actor,
            with_forced_answers(algorithm, training.answer_weight),
            prover,
            Learner(policy.model, training.learner, reference, rollout.temperature),
            problems_from_table(problems, "train"),
            problems_from_table(problems, "validation")[: training.n_validation],
            training,
            seed,
            checkpoint,
            log,
            show,
            labelled_from_tables(rollouts, episodes, labels, problems_from_table(problems)),
        )

    assert policy.card is not None  # a saved policy has one
    trained = replace(policy, card=policy.card.model_copy(update={"name": "trained", "key": key}))
    _log_policy(trained, "trained", int(history[-1]["step"]), history[-1], training.register_as)
    table = pd.DataFrame([history[0] | learning_signal, *history[1:]])
    return trained, table[["step", *(name for name in table.columns if name != "step")]].astype({"step": np.int64})


def _log_policy(
    policy: Policy, name: str, step: int, metrics: dict[str, float], register_as: str | None = None
) -> None:
    """Log the policy to MLflow as a LoggedModel, with the metrics of its validation."""
    validated = {name: value for name, value in metrics.items() if name.startswith("validation/")}
    with TemporaryDirectory() as folder:
        policy.save(Path(folder))
        log_model(Path(folder), name, step, validated, register_as)
