"""The RL loop, the same for every algorithm: sample, label, weigh, update.

A step samples `groups` problems with `group_size` rollouts each. In `forced_fraction` of the groups the thought is
forced on to the full budget, so that states past the natural end are trained too. If the algorithm asks for it,
rollouts start from stale prefixes, sampled anew every few steps, and the prover labels what the algorithm needs. The
algorithm turns that into token weights, and the learner makes its update, from the policy as it is or (STaR) from the
base.
Training ends when the policy has sampled `sampled_tokens` tokens: algorithms are compared at equal numbers of these.
"""

import time
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Annotated

import numpy as np
from pydantic import Field

from mrt_pipeline.algorithms.base import Algorithm
from mrt_pipeline.mrt.regret import regret
from mrt_pipeline.registry import INCIDENTAL, Fraction, NonNegative, Params, PositiveInt
from mrt_pipeline.rollouts.actor import Actor
from mrt_pipeline.rollouts.label import LabelledRollout, Prefix, label_rollouts
from mrt_pipeline.rollouts.prover import Prover
from mrt_pipeline.tasks.base import Problem
from mrt_pipeline.trainer.checkpoint import load_checkpoint, save_checkpoint
from mrt_pipeline.trainer.draw import (
    JUDGE,
    PREFIX,
    THINK,
    UPDATE,
    VALIDATE,
    DrawSize,
    choose_problems,
    cut_prefixes,
    prove_prefixes,
    step_seed,
)
from mrt_pipeline.trainer.learner import Learner, LearnerParams
from mrt_pipeline.trainer.mismatch import correct_mismatch
from mrt_pipeline.trainer.step import sample_batch


class TrainingParams(Params):
    """The RL loop: size and rhythm; see trainer/reinforce.py. It also validates and saves a checkpoint at its end."""

    sampled_tokens: PositiveInt = Field(description="training ends when the policy has sampled this many tokens")
    groups: PositiveInt = Field(default=32, description="problems of a step")
    group_size: Annotated[int, Field(ge=2)] = Field(default=8, description="rollouts of each problem of a step")
    n_validation: Annotated[int, Field(ge=0)] = Field(
        default=200, description="validation problems watched during training"
    )
    forced_fraction: Fraction = Field(
        default=0.25, description="share of groups whose thoughts are forced on to the budget"
    )
    answer_weight: NonNegative = Field(
        default=0.0, description="weight of training answers that are forced at a random token of each thought; 0: none"
    )
    ratio_cap: Annotated[float, Field(ge=1)] = Field(
        default=2.0,
        description="most that a weight is multiplied by for the engine's probabilities differing from the trainer's",
    )
    validate_every: PositiveInt = Field(default=10, description="steps between validations")
    checkpoint_every: PositiveInt = Field(default=10, description="steps between checkpoints")
    log_checkpoints: bool = Field(
        default=True,
        description="log the policy of every validation to MLflow, as a LoggedModel",
        json_schema_extra=INCIDENTAL,
    )
    register_as: str | None = Field(
        default=None,
        description="registered model in MLflow that the trained policy becomes the next version of; null: none",
        json_schema_extra=INCIDENTAL,
    )
    learner: LearnerParams

    @property
    def size(self) -> DrawSize:
        """Of a step's draw."""
        return DrawSize(self.groups, self.group_size, self.forced_fraction)


_START = {"step": 0, "sampled_tokens": 0, "prover_tokens": 0, "prefixes": [], "history": []}


def reinforce(
    actor: Actor,
    algorithm: Algorithm,
    prover: Prover,
    learner: Learner,
    problems: Sequence[Problem],
    validation: Sequence[Problem],
    training: TrainingParams,
    seed: int,
    checkpoint: Path,
    log: Callable[[dict[str, float], int], None],
    show: Callable[[list[LabelledRollout], int], None] = lambda rollouts, step: None,
    first: Sequence[LabelledRollout] = (),
) -> list[dict[str, float]]:
    """Train the actor's policy in place; return the metrics of all steps, each with its "step".

    If `checkpoint` holds a state of this run, training goes on from there, and the metrics of the steps before are
    logged again, so that the record of the resumed run is complete.
    log: called with the metrics of a step. show: called with a few rollouts after each validation.
    first: what training begins with, drawn and labelled already (`draw_first`, `label_first`); else it is drawn here.
    """
    if algorithm.from_base:
        learner.remember_start()
    state = load_checkpoint(checkpoint, learner) or _START
    actor.engine.update_weights()
    history: list[dict[str, float]] = list(state["history"])
    for metrics in history:
        log({name: value for name, value in metrics.items() if name != "step"}, int(metrics["step"]))
    sampled_tokens, prover_tokens = state["sampled_tokens"], state["prover_tokens"]
    prefixes = [Prefix(np.array(thought, dtype=np.int64), success) for thought, success in state["prefixes"]]
    step, every = state["step"], algorithm.prefixes_every
    if step == 0:
        metrics = validate(actor, prover, validation, seed, show, 0)
        history.append({"step": 0, **metrics})
        log(metrics, 0)
    while sampled_tokens < training.sampled_tokens:
        clock, before = _Clock(), sampled_tokens
        seed_for, start = partial(step_seed, seed, step), step * training.groups
        drawn, age = first if step == 0 else (), step % every if every else 0
        if every and age == 0:
            thoughts = drawn
            if not thoughts:
                coming = choose_problems(problems, start, training.groups * every, seed)
                rollouts = actor.sample(coming, 1, seed_for(THINK))
                thoughts = prove_prefixes(actor, prover, rollouts, seed_for(PREFIX))
            prefixes, sampled, proved = cut_prefixes(thoughts)
            sampled_tokens, prover_tokens = sampled_tokens + sampled, prover_tokens + proved
            clock.lap("prefixes")
        metrics, batch = sample_batch(
            actor,
            algorithm,
            prover,
            choose_problems(problems, start, training.groups, seed),
            prefixes[age * training.groups : (age + 1) * training.groups],
            training.size,
            seed_for,
            clock.lap,
            () if every else drawn,
        )
        # The first draw was sampled before mixed precision changed how the trainer's module computes.
        computes_alike = actor.engine.shares_weights and not (drawn and learner.settings.mixed_precision != "no")
        if not computes_alike:
            batch, mismatch = correct_mismatch(learner, batch, training.ratio_cap)
            metrics |= {f"train/{name}": value for name, value in mismatch.items()}
        fraction_done, span = sampled_tokens / training.sampled_tokens, 0.0
        if algorithm.from_base:
            learner.restart()
            fraction_done, span = 0.0, 1.0  # a training of its own
        updated = learner.update(batch, fraction_done, seed_for(UPDATE), span)
        metrics |= {f"train/{name}": value for name, value in updated.items()}
        actor.engine.update_weights()
        clock.lap("update")
        sampled_tokens += int(metrics.pop("sampled_tokens"))
        prover_tokens += int(metrics.pop("prover_tokens"))
        step += 1
        done = sampled_tokens >= training.sampled_tokens
        if step % training.validate_every == 0 or done:
            metrics |= validate(actor, prover, validation, seed, show, step)
        metrics |= {"train/sampled_tokens": sampled_tokens, "train/prover_tokens": prover_tokens, **clock.seconds}
        if not drawn:  # else its sampling is not in the time
            metrics["time/tokens_per_second"] = (sampled_tokens - before) / sum(clock.seconds.values())
        history.append({"step": step, **metrics})
        log(metrics, step)
        if step % training.checkpoint_every == 0 or done:
            state = {
                "step": step,
                "sampled_tokens": sampled_tokens,
                "prover_tokens": prover_tokens,
                "prefixes": [(prefix.thought.tolist(), prefix.success) for prefix in prefixes],
                "history": history,
            }
            save_checkpoint(checkpoint, learner, state)
    return history


def validate(
    actor: Actor,
    prover: Prover,
    problems: Sequence[Problem],
    seed: int,
    show: Callable[[list[LabelledRollout], int], None],
    step: int,
) -> dict[str, float]:
    """One natural rollout of each validation problem, the same seed every time: accuracy, length and regret."""
    if not problems:
        return {}
    rollouts = actor.sample(problems, 1, step_seed(seed, 0, VALIDATE))
    labelled = label_rollouts(actor, prover, rollouts, step_seed(seed, 0, JUDGE))
    show(labelled, step)
    budget = actor.limits.thinking_budget
    return {
        "validation/accuracy": float(np.mean([rollout.reward for rollout in rollouts])),
        "validation/thinking_tokens": float(np.mean([len(rollout.thought) for rollout in rollouts])),
        "validation/regret": float(np.mean([regret(*item.curve(), budget) for item in labelled])),
    }


class _Clock:
    def __init__(self) -> None:
        self.seconds: dict[str, float] = {}
        self._last = time.perf_counter()

    def lap(self, name: str) -> None:
        now = time.perf_counter()
        self.seconds[f"time/{name}"] = now - self._last
        self._last = now
