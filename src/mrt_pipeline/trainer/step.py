"""One step's data: sample, label, weigh. What comes out goes to the learner as it is."""

from collections.abc import Callable, Sequence
from dataclasses import replace

import numpy as np

from mrt_pipeline.algorithms.base import Algorithm
from mrt_pipeline.engines.base import NO_CHOICE
from mrt_pipeline.mrt.progress import progress
from mrt_pipeline.rollouts.actor import Actor
from mrt_pipeline.rollouts.label import ForcedAnswer, LabelledRollout, Prefix
from mrt_pipeline.rollouts.prover import Prover
from mrt_pipeline.rollouts.rollout import Rollout
from mrt_pipeline.tasks.base import Grade, Problem
from mrt_pipeline.trainer.batch import TrainingSequence
from mrt_pipeline.trainer.draw import ANSWER, SAMPLE, DrawSize, as_needed, draw_step, label_draw


def sample_batch(
    actor: Actor,
    algorithm: Algorithm,
    prover: Prover,
    problems: Sequence[Problem],
    prefixes: Sequence[Prefix],
    size: DrawSize,
    seed: Callable[[int], int],
    lap: Callable[[str], None],
    drawn: Sequence[LabelledRollout] = (),
) -> tuple[dict[str, float], list[TrainingSequence]]:
    """Metrics and training sequences of a step on `problems`.

    prefixes: one for each problem if the algorithm branches from stale prefixes, else none.
    seed: a seed for each purpose. lap: called with the name of a part when it is done.
    drawn: the step's rollouts, if they have been drawn and labelled already (`draw_first`, `label_first`).
    """
    if drawn:
        labelled = as_needed(algorithm, drawn)
    else:
        labelled = draw_step(actor, problems, prefixes, size, seed(SAMPLE))
        lap("sample")
        labelled = label_draw(actor, algorithm, prover, labelled, seed, algorithm.needs_success)
        lap("prove")
    answers = _force_answers(actor, algorithm, labelled, seed(ANSWER))
    lap("answer")
    sequences = _sequences(algorithm, labelled, answers, actor.template.eos_id)
    sampled = [*(item.rollout for item in labelled), *(answer.rollout for answer in answers)]
    metrics = {
        "sampled_tokens": float(sum(rollout.n_sampled for rollout in sampled)),
        "prover_tokens": float(sum(item.prover_tokens for item in labelled)),
        **_rollout_metrics(labelled, answers, size.n_forced, size.group_size),
        "train/trained_sequences": float(len(sequences)),
    }
    return metrics, sequences


def _force_answers(
    actor: Actor, algorithm: Algorithm, labelled: Sequence[LabelledRollout], seed: int
) -> list[ForcedAnswer]:
    snap = actor.template.snap
    where = [
        (i, snap(item.rollout.thought, cut, item.rollout.finished))
        for i, item in enumerate(labelled)
        for cut in algorithm.answers(item)
    ]
    if not where:
        return []
    rollouts, cuts = [labelled[i].rollout for i, _ in where], [cut for _, cut in where]
    answered = actor.answer(rollouts, cuts, seed, closed=algorithm.likelihood)
    return [
        ForcedAnswer(i, cut, labelled[i].success_at(cut), answer)
        for (i, cut), answer in zip(where, answered, strict=True)
    ]


def _sequences(
    algorithm: Algorithm, labelled: list[LabelledRollout], answers: list[ForcedAnswer], eos_id: int
) -> list[TrainingSequence]:
    weighted = [(item.rollout, weights) for item, weights in zip(labelled, algorithm.weights(labelled), strict=True)]
    if answers:
        if algorithm.likelihood:
            answers = [replace(answer, rollout=_imitated(labelled, answer, eos_id)) for answer in answers]
        weights = algorithm.answer_weights(labelled, answers)
        weighted += zip([answer.rollout for answer in answers], weights, strict=True)
    if algorithm.likelihood:
        return [_sequence(rollout, weights, True) for rollout, weights in weighted if np.any(weights)]
    return [_sequence(rollout, weights, False) for rollout, weights in weighted]


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
    labelled: list[LabelledRollout], answers: list[ForcedAnswer], n_forced: int, group_size: int
) -> dict[str, float]:
    thinking = [item.rollout for item in labelled if not item.direct]
    free = [rollout for rollout in thinking if rollout.group >= n_forced] or thinking
    rewards = np.array([item.rollout.reward for item in labelled]).reshape(-1, group_size)
    metrics = {
        "train/reward": float(np.mean([rollout.reward for rollout in free])),
        "train/thinking_tokens": float(np.mean([len(rollout.thought) for rollout in free])),
        "train/cut_at_budget": float(np.mean([rollout.stop_reason == "length" for rollout in free])),
        "train/unanswered": float(np.mean([rollout.grade is Grade.UNPARSED for rollout in free])),
        "train/groups_without_signal": float(np.mean(rewards.min(axis=1) == rewards.max(axis=1))),
    }
    if n_forced:
        metrics["train/reward_forced"] = _mean_reward(r for r in thinking if r.group < n_forced)
    if len(labelled[0].success):
        metrics["train/progress"] = float(np.mean(np.concatenate([progress(item.success) for item in labelled])))
        metrics["train/success_start"] = float(np.mean([item.success[0] for item in labelled]))
        metrics["train/success_end"] = float(np.mean([item.success[-1] for item in labelled]))
    if labelled[0].prefix is not None:
        metrics["train/reward_direct"] = _mean_reward(item.rollout for item in labelled if item.direct)
        metrics["train/success_prefix"] = float(np.mean([item.prefix.success for item in labelled]))
    if answers:
        metrics["train/reward_forced_answers"] = _mean_reward(answer.rollout for answer in answers)
    return metrics


def _mean_reward(rollouts) -> float:
    return float(np.mean([rollout.reward for rollout in rollouts]))
