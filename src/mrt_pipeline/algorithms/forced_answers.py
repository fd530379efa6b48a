"""Answers forced at random places, trained beside any algorithm: the policy learns to answer wherever it is stopped.

Every thought of the batch is also cut after a random number of tokens u, uniform over 0..n, and an answer forced there:

    w_t = weight * (r - J(z_0:u))             for the tokens of that answer; the thought before it is not trained here

J is the expectation of r, so the advantage has mean 0 and no group is needed for a baseline. (At the end of a thought
that the policy closed itself J is that of its natural answer: still a baseline, and no bias.) Selected by
`training.answer_weight`, for every RL algorithm alike. AnytimeReasoner trains its forced answers too (`brpo`).
What it depends on: the answer alone; J is given with the thought.
Degenerate cases: weight = 0 is not used at all; a thought whose answers are all right or all wrong teaches nothing.
"""

from collections.abc import Sequence

import numpy as np

from mrt_pipeline.algorithms.base import Algorithm
from mrt_pipeline.rollouts.label import ForcedAnswer, LabelledRollout


class WithForcedAnswers(Algorithm):
    """`inner`, and one forced answer of each rollout; see the module's docstring."""

    def __init__(self, inner: Algorithm, weight: float):
        if inner.likelihood:
            raise ValueError("likelihood takes no negative weights: forced answers go with RL algorithms only")
        self.inner, self.weight = inner, weight
        self.name, self.needs_success, self.refresh_every = inner.name, inner.needs_success, inner.refresh_every

    def weights(self, rollouts: Sequence[LabelledRollout]) -> list[np.ndarray]:
        """Those of `inner`."""
        return self.inner.weights(rollouts)

    def cuts(self, labelled: LabelledRollout, rng: np.random.Generator) -> list[int]:
        """Those of `inner`, and the random one last."""
        return [*self.inner.cuts(labelled, rng), int(rng.integers(len(labelled.rollout.thought) + 1))]

    def answers(self, labelled: LabelledRollout) -> list[int]:
        """Those of `inner`, and the one at the random cut last."""
        return [*self.inner.answers(labelled), int(labelled.cuts[-1])]

    def answer_weights(self, rollouts: Sequence[LabelledRollout], answers: Sequence[ForcedAnswer]) -> list[np.ndarray]:
        """weight * (r - J) for the random ones, `inner`'s for its own."""
        last = [i + 1 == len(answers) or answers[i + 1].source != a.source for i, a in enumerate(answers)]
        inner = [answer for answer, is_last in zip(answers, last, strict=True) if not is_last]
        weights = iter(self.inner.answer_weights(rollouts, inner) if inner else [])
        return [
            answer.rollout.per_token(0.0, self.weight * (answer.rollout.reward - answer.success))
            if is_last
            else next(weights)
            for answer, is_last in zip(answers, last, strict=True)
        ]
