"""One step's data: sample, label, weigh. What comes out goes to the learner as it is."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import numpy as np

from mrt_pipeline.algorithms.base import Algorithm
from mrt_pipeline.engines.base import Engine
from mrt_pipeline.learner.batch import TrainingSequence
from mrt_pipeline.policy.policy import Policy
from mrt_pipeline.rollouts.label import LabelledRollout, label_rollouts
from mrt_pipeline.rollouts.prover import Prover
from mrt_pipeline.rollouts.rollout import Rollout, RolloutSettings, sample_rollouts
from mrt_pipeline.tasks.base import Problem, Task

_EMPTY = np.empty(0)
_SAMPLE, _PROVE, _CUT, _ANSWER = 1, 2, 7, 8  # purposes of a step's seeds


@dataclass(frozen=True)
class Setup:
    """What samples and judges in the loop: all of it fixed during training, but for the policy's weights."""

    policy: Policy
    engine: Engine
    task: Task
    prover: Prover
    rollout: RolloutSettings

    def sample(self, problems: Sequence[Problem], n: int, seed: int, **how) -> list[Rollout]:
        """Rollouts of the policy as it is now; see `sample_rollouts`."""
        policy = self.policy
        return sample_rollouts(
            self.engine, self.task, policy.tokenizer, policy.template, problems, self.rollout, n, seed, **how
        )

    def answer(self, rollouts: Sequence[Rollout], cuts: Sequence[int], seed: int) -> list[Rollout]:
        """Cut each rollout's thought after so many tokens and force an answer there."""
        return self.sample(
            [rollout.problem for rollout in rollouts],
            1,
            seed,
            prefixes=[rollout.thought[:cut] for rollout, cut in zip(rollouts, cuts, strict=True)],
            direct=[True] * len(rollouts),
        )


def sample_batch(
    setup: Setup,
    algorithm: Algorithm,
    problems: Sequence[Problem],
    group_size: int,
    forced_fraction: float,
    answer_weight: float,
    seed: Callable[[int], int],
    lap: Callable[[str], None],
) -> tuple[dict[str, float], list[TrainingSequence]]:
    """Metrics and training sequences of a step on `problems`.

    forced_fraction, answer_weight: see `ReinforceSettings`. seed: a seed for each purpose. lap: called with the name of
    a part when it is done.
    """
    n_forced = round(forced_fraction * len(problems))
    forced = np.where(np.arange(len(problems)) < n_forced, setup.rollout.thinking_budget, 0)
    rollouts = setup.sample(problems, group_size, seed(_SAMPLE), min_thinking=forced)
    lap("sample")
    template = setup.policy.template
    labelled = [LabelledRollout(rollout, rollout.boundaries(template), _EMPTY, _EMPTY) for rollout in rollouts]
    rng = np.random.default_rng(seed(_CUT))
    random_cuts = [int(rng.integers(len(rollout.thought) + 1)) for rollout in rollouts] if answer_weight else []
    at_cuts, prover_tokens = [], 0
    if algorithm.needs_success or answer_weight:
        labelled, at_cuts, prover_tokens = label_rollouts(
            setup.engine, setup.prover, template, rollouts, seed(_PROVE), [[cut] for cut in random_cuts] or None
        )
    lap("prove")
    answers: list[Rollout] = []
    if algorithm.cuts:
        answers = setup.answer(rollouts, [algorithm.cut(item) for item in labelled], seed(_ANSWER))
    elif answer_weight:
        answers = setup.answer(rollouts, random_cuts, seed(_ANSWER))
    lap("answer")
    sequences = _sequences(algorithm, labelled, answers, np.concatenate([_EMPTY, *at_cuts]), answer_weight)
    metrics = {
        "sampled_tokens": float(sum(rollout.n_sampled for rollout in [*rollouts, *answers])),
        "prover_tokens": float(prover_tokens),
        **_rollout_metrics(labelled, answers, n_forced, group_size),
        "train/trained_sequences": float(len(sequences)),
    }
    return metrics, sequences


def _sequences(
    algorithm: Algorithm,
    labelled: list[LabelledRollout],
    answers: list[Rollout],
    answer_success: np.ndarray,
    answer_weight: float,
) -> list[TrainingSequence]:
    weighted = [(item.rollout, weights) for item, weights in zip(labelled, algorithm.weights(labelled), strict=True)]
    if algorithm.cuts:
        # The thought of a cut was sampled by the policy, and stopping there is what is to be learnt.
        cuts = [
            replace(answer, thought_sampled=item.rollout.thought_sampled[: len(answer.thought)], stop_reason="stop")
            for item, answer in zip(labelled, answers, strict=True)
        ]
        weighted += zip(cuts, algorithm.cut_weights(labelled, cuts), strict=True)
    else:
        for answer, success in zip(answers, answer_success, strict=True):
            weight = answer_weight * (answer.reward - success)
            weighted.append((answer, answer.per_token(weight, weight)))
    if algorithm.likelihood:
        return [_sequence(rollout, weights, True) for rollout, weights in weighted if np.any(weights)]
    return [_sequence(rollout, weights, False) for rollout, weights in weighted]


def _sequence(rollout: Rollout, weights: np.ndarray, likelihood: bool) -> TrainingSequence:
    trained = rollout.sampled()
    return TrainingSequence(
        token_ids=rollout.token_ids(),
        prompt_length=len(rollout.prompt),
        weights=weights,
        trained=trained & (weights != 0) if likelihood else trained,
        logprobs=None if likelihood else rollout.logprobs(),
    )


def _rollout_metrics(
    labelled: list[LabelledRollout], answers: list[Rollout], n_forced: int, group_size: int
) -> dict[str, float]:
    rollouts = [item.rollout for item in labelled]
    free = [rollout for rollout in rollouts if rollout.group >= n_forced] or rollouts
    rewards = np.array([rollout.reward for rollout in rollouts]).reshape(-1, group_size)
    metrics = {
        "train/reward": float(np.mean([rollout.reward for rollout in free])),
        "train/thinking_tokens": float(np.mean([len(rollout.thought) for rollout in free])),
        "train/cut_at_budget": float(np.mean([rollout.stop_reason == "length" for rollout in free])),
        "train/groups_without_signal": float(np.mean(rewards.min(axis=1) == rewards.max(axis=1))),
    }
    if n_forced:
        metrics["train/reward_forced"] = float(rewards[:n_forced].mean())
    if len(labelled[0].success):
        metrics["train/success_start"] = float(np.mean([item.success[0] for item in labelled]))
        metrics["train/success_end"] = float(np.mean([item.success[-1] for item in labelled]))
    if answers:
        metrics["train/reward_forced_answers"] = float(np.mean([answer.reward for answer in answers]))
    return metrics
