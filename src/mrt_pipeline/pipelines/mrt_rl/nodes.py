"""Nodes of `mrt_rl`."""

import logging
import shutil
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
import pandas as pd
from tqdm import tqdm

from mrt_pipeline.config import (
    AlgorithmParams,
    EngineParams,
    PolicyParams,
    ProverParams,
    RolloutParams,
    TaskParams,
    TrainingParams,
)
from mrt_pipeline.evaluation.base_check import check_base, closed_by_the_policy, look_at_base
from mrt_pipeline.learner.checkpoint import CHECKPOINTS
from mrt_pipeline.learner.learner import Learner, has_adapters
from mrt_pipeline.learner.reinforce import ReinforceSettings, reinforce
from mrt_pipeline.learner.sampling import Setup
from mrt_pipeline.pipelines.assemble import (
    make_algorithm,
    make_engine,
    make_learner_settings,
    make_prover,
    make_rollout_settings,
    make_task,
    open_policy,
    open_template,
)
from mrt_pipeline.pipelines.keys import configuration_key
from mrt_pipeline.reporting.samples import render_traces
from mrt_pipeline.rollouts.label import LabelledRollout
from mrt_pipeline.rollouts.tables import ends_as_if_stopped, problems_from_table
from mrt_pipeline.tracking.runs import log_metrics, log_model, log_policy, log_text

logger = logging.getLogger(__name__)
_POLICIES = Path("data/06_models/trained")


def measure_learning_signal(
    rollouts: pd.DataFrame,
    episodes: pd.DataFrame,
    problems: pd.DataFrame,
    base_policy: dict[str, str],
    policy_params: PolicyParams,
    task: TaskParams,
    engine: EngineParams,
    prover: ProverParams,
    rollout: RolloutParams,
) -> dict[str, float]:
    """What RL will find on the base policy's training traces; warns of what would spoil it, refuses the hopeless."""
    game = make_task(task)
    template, stopped = open_template(base_policy, policy_params, game), None
    closed = closed_by_the_policy(rollouts)
    if template.close != template.stop_phrase and len(closed):
        policy = open_policy(base_policy, policy_params, game)
        queries = ends_as_if_stopped(closed, problems_from_table(problems))
        sampler = make_engine(engine, policy, base_policy, policy_params)
        asked = make_prover(prover, policy, game, rollout).success(sampler, queries, int(closed["seed"].iloc[0]))
        stopped = [float(success.mean[0]) for success in asked]
    found = look_at_base(rollouts, stopped)
    measured = {
        **found,
        "absolute_progress": float(episodes.loc[~episodes["stopped"], "progress"].abs().mean()),
        **game.trace_metrics(rollouts["text"].tolist()),
    }
    signal = {f"base/{name}": value for name, value in measured.items()}
    log_metrics(signal, 0)
    for warning in check_base(found):
        logger.warning("Look before you train: %s", warning)
    return signal


def train_policy(
    problems: pd.DataFrame,
    base_policy: dict[str, str],
    learning_signal: dict[str, float],
    policy_params: PolicyParams,
    task: TaskParams,
    engine: EngineParams,
    prover: ProverParams,
    algorithm: AlgorithmParams,
    rollout: RolloutParams,
    training: TrainingParams,
    seed: int,
) -> tuple[dict[str, str], pd.DataFrame]:
    """Train the policy by RL with the chosen credit assignment; goes on from its checkpoint if it was interrupted."""
    key = configuration_key(
        base=base_policy["key"],
        engine=engine,
        prover=prover,
        algorithm=algorithm,
        rollout=rollout,
        training=training,
        seed=seed,
    )
    game = make_task(task)
    policy = open_policy(base_policy, policy_params, game, train_seed=seed)
    reference = None
    if training.learner.kl_beta > 0 and not has_adapters(policy.model):
        reference = open_policy(base_policy, policy_params, game).model.eval()
    setup = Setup(
        policy,
        make_engine(engine, policy, base_policy, policy_params),
        game,
        make_prover(prover, policy, game, rollout),
        make_rollout_settings(rollout),
    )
    settings = ReinforceSettings(
        **training.model_dump(exclude={"n_validation", "learner", "answer_weight", "log_checkpoints", "register_as"})
    )
    checkpoint = CHECKPOINTS / key
    if checkpoint.exists():
        logger.info("Training goes on from the checkpoint in %s", checkpoint)

    with tqdm(
        total=settings.sampled_tokens, desc=algorithm.root.name, unit="token", unit_scale=True, disable=None
    ) as bar:

        def log(metrics: dict[str, float], step: int) -> None:
            log_metrics(metrics, step)
            if "train/reward" in metrics:
                bar.update(min(int(metrics["train/sampled_tokens"]), bar.total) - bar.n)
                bar.set_postfix(step=step, reward=f"{metrics['train/reward']:.2f}")
            if "validation/regret" in metrics:
                logger.info(
                    "Step %d: validation accuracy %.3f, regret %.3f, thinking tokens %.0f",
                    step,
                    metrics["validation/accuracy"],
                    metrics["validation/regret"],
                    metrics["validation/thinking_tokens"],
                )
            if step in live and training.log_checkpoints:
                with TemporaryDirectory() as folder:
                    policy.save(Path(folder))
                    log_model(Path(folder), f"step_{step}", step, _validated(metrics))

        live = set()  # steps made now, not replayed from a checkpoint

        def show(traces: list[LabelledRollout], step: int) -> None:
            live.add(step)
            text = render_traces(traces[:8], policy.tokenizer.decode)
            log_text(text, f"samples/step_{step:05d}.txt")

        history = reinforce(
            setup,
            make_algorithm(algorithm, rollout, training.answer_weight),
            Learner(policy.model, make_learner_settings(training.learner, rollout.temperature), reference),
            problems_from_table(problems, "train"),
            problems_from_table(problems, "validation")[: training.n_validation],
            settings,
            seed,
            checkpoint,
            log,
            show,
        )

    folder = _POLICIES / key
    shutil.rmtree(folder, ignore_errors=True)
    policy.save(folder)
    log_policy(folder)
    log_model(folder, "trained", int(history[-1]["step"]), _validated(history[-1]), training.register_as)
    table = pd.DataFrame(history)
    return (
        {**base_policy, "name": "trained", "path": str(folder), "key": key},
        table[["step", *(name for name in table.columns if name != "step")]].astype({"step": np.int64}),
    )


def _validated(metrics: dict[str, float]) -> dict[str, float]:
    return {name: value for name, value in metrics.items() if name.startswith("validation/")}
