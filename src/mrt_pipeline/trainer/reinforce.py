"""The RL loop, the same for every algorithm: sample, label, weigh, update.

A step samples `groups` problems with `group_size` rollouts each. In `forced_fraction` of the groups the thought is
forced on to the full budget, so that states past the natural end are trained too. If the algorithm asks for it,
rollouts start from stale prefixes, sampled anew every few steps, and the prover labels what the algorithm needs. The
algorithm turns that into token weights, and the learner makes its update, from the policy as it is or (STaR) from the
base.
Training ends when the policy has sampled `sampled_tokens` tokens: algorithms are compared at equal numbers of these.
With `stop_when_flat` it may end at a validation before, as when a base at its plateau is wanted.
"""

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import replace
from functools import partial
from itertools import pairwise
from pathlib import Path
from time import perf_counter
from typing import Any

import numpy as np

from mrt_pipeline.algorithms.base import Algorithm
from mrt_pipeline.engines.base import NO_CHOICE
from mrt_pipeline.mrt.progress import progress
from mrt_pipeline.mrt.regret import regret
from mrt_pipeline.rollouts.actor import Actor
from mrt_pipeline.rollouts.label import ForcedAnswer, LabelledRollout, Prefix, label_rollouts
from mrt_pipeline.rollouts.prover import Prover
from mrt_pipeline.rollouts.rollout import Rollout
from mrt_pipeline.tasks.base import Grade, Problem
from mrt_pipeline.trainer import draw
from mrt_pipeline.trainer.batch import TrainingSequence
from mrt_pipeline.trainer.checkpoint import load_checkpoint, save_checkpoint
from mrt_pipeline.trainer.draw import DrawSize
from mrt_pipeline.trainer.learner import Learner
from mrt_pipeline.trainer.params import TrainingParams

_FLAT = 3  # validations without a gain
Show = Callable[[list[LabelledRollout], int], None]


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
    show: Show = lambda rollouts, step: None,
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
    fresh: dict[str, Any] = {"step": 0, "sampled_tokens": 0, "prover_tokens": 0, "prefixes": [], "history": []}
    state = load_checkpoint(checkpoint, learner) or fresh
    actor.engine.update_weights()
    history: list[dict[str, float]] = state["history"]
    if not history:
        history.append({"step": 0, **validate(actor, prover, validation, seed, show, 0)})
    for metrics in history:
        log({name: value for name, value in metrics.items() if name != "step"}, int(metrics["step"]))

    def count(labelled: Sequence[LabelledRollout], answers: Sequence[ForcedAnswer] = ()) -> None:
        rollouts = [*(item.rollout for item in labelled), *(answer.rollout for answer in answers)]
        state["sampled_tokens"] += sum(rollout.n_sampled for rollout in rollouts)
        state["prover_tokens"] += sum(item.prover_tokens for item in labelled)

    done = _is_done(training, state["sampled_tokens"], history)
    while not done:
        step, before = state["step"], state["sampled_tokens"]
        ended = {"": perf_counter()}  # when each part of the step was done
        seed_for, n_seen = partial(draw.step_seed, seed, step), step * training.groups
        drawn, every = first if step == 0 else (), algorithm.prefixes_every
        age = step % every if every else 0
        if every and age == 0:
            thoughts = drawn
            if not thoughts:
                coming = draw.choose_problems(problems, n_seen, training.groups * every, seed)
                rollouts = actor.sample(coming, 1, seed_for(draw.THINK))
                thoughts = draw.prove_prefixes(actor, prover, rollouts, seed_for(draw.PREFIX))
            found = map(draw.prefix_of, thoughts)
            state["prefixes"] = [(prefix.thought.tolist(), prefix.success) for prefix in found]
            count(thoughts)
            ended["prefixes"] = perf_counter()

        if drawn and not every:
            labelled = list(drawn)
            if not algorithm.needs_success:  # it was measured to be looked at
                labelled = [replace(item, success=np.empty(0), success_sem=np.empty(0)) for item in drawn]
        else:
            chosen = draw.choose_problems(problems, n_seen, training.groups, seed)
            own = state["prefixes"][age * training.groups : (age + 1) * training.groups]
            prefixes = [Prefix(np.array(thought, dtype=np.int64), success) for thought, success in own]
            labelled = draw.draw_step(actor, chosen, prefixes, training.size, seed_for(draw.SAMPLE))
            ended["sample"] = perf_counter()
            labelled = draw.label_draw(actor, algorithm, prover, labelled, seed_for)
            ended["prove"] = perf_counter()
        answers = force_answers(actor, algorithm, labelled, seed_for(draw.ANSWER))
        ended["answer"] = perf_counter()
        batch = training_sequences(algorithm, labelled, answers, actor.template.eos_id)
        metrics = _rollout_metrics(labelled, answers, training.size)
        metrics["train/trained_sequences"] = float(len(batch))

        # The first draw was sampled before mixed precision changed how the trainer's module computes.
        computes_alike = actor.engine.shares_weights and not (drawn and learner.settings.mixed_precision != "no")
        mismatch: dict[str, float] = {}
        if not computes_alike:
            batch, mismatch = learner.correct_mismatch(batch, training.ratio_cap)
        fraction_done, span = state["sampled_tokens"] / training.sampled_tokens, 0.0
        if algorithm.from_base:
            learner.restart()
            fraction_done, span = 0.0, 1.0  # a training of its own
        updated = learner.update(batch, fraction_done, seed_for(draw.UPDATE), span)
        metrics |= {f"train/{name}": value for name, value in (mismatch | updated).items()}
        actor.engine.update_weights()
        ended["update"] = perf_counter()

        count(labelled, answers)
        state["step"] = step = step + 1
        done = state["sampled_tokens"] >= training.sampled_tokens
        if step % training.validate_every == 0 or done:
            metrics |= validate(actor, prover, validation, seed, show, step)
            done = _is_done(training, state["sampled_tokens"], [*history, metrics])
        metrics |= {f"train/{name}": state[name] for name in ("sampled_tokens", "prover_tokens")}
        seconds = {f"time/{name}": end - start for (_, start), (name, end) in pairwise(ended.items())}
        metrics |= seconds
        if not drawn:  # else its sampling is not in the time
            metrics["time/tokens_per_second"] = (state["sampled_tokens"] - before) / sum(seconds.values())
        history.append({"step": step, **metrics})
        log(metrics, step)
        if step % training.checkpoint_every == 0 or done:
            save_checkpoint(checkpoint, learner, state)
    return history


def _is_done(training: TrainingParams, sampled_tokens: int, history: Sequence[Mapping[str, float]]) -> bool:
    """Whether all tokens are sampled, or accuracy is flat: see `stop_when_flat`."""
    if sampled_tokens >= training.sampled_tokens:
        return True
    accuracies = [metrics["validation/accuracy"] for metrics in history if "validation/accuracy" in metrics]
    if training.stop_when_flat is None or len(accuracies) <= _FLAT:
        return False
    return max(accuracies[-_FLAT:]) < max(accuracies[:-_FLAT]) + training.stop_when_flat


def validate(
    actor: Actor, prover: Prover, problems: Sequence[Problem], seed: int, show: Show, step: int
) -> dict[str, float]:
    """One natural rollout of each validation problem, the same seed every time: accuracy, length and regret."""
    if not problems:
        return {}
    rollouts = actor.sample(problems, 1, draw.step_seed(seed, 0, draw.VALIDATE))
    labelled = label_rollouts(actor, prover, rollouts, draw.step_seed(seed, 0, draw.JUDGE))
    show(labelled, step)
    budget = actor.limits.thinking_budget
    return {
        "validation/accuracy": _mean(rollout.reward for rollout in rollouts),
        "validation/thinking_tokens": _mean(len(rollout.thought) for rollout in rollouts),
        "validation/regret": _mean(regret(*item.curve(), budget) for item in labelled),
    }


def force_answers(
    actor: Actor, algorithm: Algorithm, labelled: Sequence[LabelledRollout], seed: int
) -> list[ForcedAnswer]:
    """The answers inside thoughts that the algorithm trains, sampled and graded; most algorithms train none."""
    snap = actor.template.snap
    where = [
        (i, snap(item.rollout.thought, cut, item.rollout.finished))
        for i, item in enumerate(labelled)
        for cut in algorithm.answers(item)
    ]
    if not where:
        return []
    rollouts, cuts = [labelled[i].rollout for i, _ in where], [cut for _, cut in where]
    answered = zip(where, actor.answer(rollouts, cuts, seed, closed=algorithm.likelihood), strict=True)
    return [ForcedAnswer(i, cut, labelled[i].success_at(cut), answer) for (i, cut), answer in answered]


def training_sequences(
    algorithm: Algorithm, labelled: Sequence[LabelledRollout], answers: Sequence[ForcedAnswer], eos_id: int
) -> list[TrainingSequence]:
    """The rollouts of a batch and `force_answers`, with the algorithm's weights. eos_id: the end of an answer."""
    if algorithm.likelihood:
        answers = [replace(answer, rollout=_imitated(labelled, answer, eos_id)) for answer in answers]
    rollouts = [*(item.rollout for item in labelled), *(answer.rollout for answer in answers)]
    weights = [*algorithm.weights(labelled), *(algorithm.answer_weights(labelled, answers) if answers else [])]
    return [
        _sequence(rollout, own, algorithm.likelihood)
        for rollout, own in zip(rollouts, weights, strict=True)
        if np.any(own) or not algorithm.likelihood
    ]


def _imitated(labelled: Sequence[LabelledRollout], answer: ForcedAnswer, eos_id: int) -> Rollout:
    """A forced answer to be imitated as a whole: the policy sampled its thought, and stopping here is to be learnt."""
    rollout = answer.rollout
    choices = labelled[answer.source].rollout.thought_choices[: answer.cut]
    went_on = np.where(choices == rollout.thought, choices, NO_CHOICE)  # stopping where it was forced on is no example
    ended = rollout.answer.copy()
    ended[-1:] = eos_id  # it may have gone back instead; an answer that did not end is never right, so never imitated
    return replace(rollout, thought_choices=went_on, stop_reason="stop", answer=ended)


def _sequence(rollout: Rollout, weights: np.ndarray, likelihood: bool) -> TrainingSequence:
    trained = rollout.sampled()
    return TrainingSequence(
        token_ids=rollout.token_ids(),
        prompt_length=len(rollout.prompt),
        weights=weights,
        trained=trained & (weights != 0) if likelihood else trained,
        logprobs=None if likelihood else rollout.logprobs(),
        choices=rollout.choices(),
    )


def _rollout_metrics(
    labelled: Sequence[LabelledRollout], answers: Sequence[ForcedAnswer], size: DrawSize
) -> dict[str, float]:
    thinking = [item.rollout for item in labelled if not item.direct]
    free = [rollout for rollout in thinking if rollout.group >= size.n_forced] or thinking
    rewards = np.array([item.rollout.reward for item in labelled]).reshape(-1, size.group_size)
    metrics = {
        "train/reward": _mean(rollout.reward for rollout in free),
        "train/thinking_tokens": _mean(len(rollout.thought) for rollout in free),
        "train/cut_at_budget": _mean(rollout.stop_reason == "length" for rollout in free),
        "train/unanswered": _mean(rollout.grade is Grade.UNPARSED for rollout in free),
        "train/groups_without_signal": _mean(rewards.min(axis=1) == rewards.max(axis=1)),
    }
    if size.n_forced:
        metrics["train/reward_forced"] = _mean(rollout.reward for rollout in thinking if rollout.group < size.n_forced)
    if len(labelled[0].success):
        metrics["train/progress"] = _mean(np.concatenate([progress(item.success) for item in labelled]))
        metrics["train/success_start"] = _mean(item.success[0] for item in labelled)
        metrics["train/success_end"] = _mean(item.success[-1] for item in labelled)
    prefixes = [item.prefix.success for item in labelled if item.prefix is not None]
    if prefixes:
        metrics["train/reward_direct"] = _mean(item.rollout.reward for item in labelled if item.direct)
        metrics["train/success_prefix"] = _mean(prefixes)
    if answers:
        metrics["train/reward_forced_answers"] = _mean(answer.rollout.reward for answer in answers)
    return metrics


def _mean(values: Iterable[float]) -> float:
    return float(np.mean(list(values)))
