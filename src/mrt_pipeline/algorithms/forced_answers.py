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
from dataclasses import replace
from typing import Any, cast

import numpy as np

from mrt_pipeline.algorithms.base import Algorithm, Rollouts, Weights, place_on_answers
from mrt_pipeline.rollouts.label import ForcedAnswer, LabelledRollout


class WithForcedAnswers:
    """`inner`, and one forced answer of each rollout; see the module's docstring.

    It has the interface of an `Algorithm`; all that is not here is `inner`'s.
    """

    def __init__(self, inner: Algorithm, weight: float):
        if inner.likelihood:
            raise ValueError("likelihood takes no negative weights: forced answers go with RL algorithms only")
        self.inner, self.weight = inner, weight

    def __getattr__(self, name: str) -> Any:
        return getattr(self.inner, name)

    def weights(self, rollouts: Rollouts) -> Weights:
        """Those of `inner`."""
        return self.inner.weights([_own(labelled) for labelled in rollouts])

    def cuts(self, labelled: LabelledRollout, rng: np.random.Generator) -> list[int]:
        """Those of `inner`, and the random one last."""
        return [*self.inner.cuts(labelled, rng), int(rng.integers(len(labelled.rollout.thought) + 1))]

    def answers(self, labelled: LabelledRollout) -> list[int]:
        """Those of `inner`, and the one at the random cut last."""
        return [*self.inner.answers(_own(labelled)), int(labelled.cuts[-1])]

    def answer_weights(self, rollouts: Rollouts, answers: Sequence[ForcedAnswer]) -> Weights:
        """weight * (r - J) for the random ones, `inner`'s for its own."""
        random = set({answer.source: i for i, answer in enumerate(answers)}.values())  # the last of each rollout
        inner = [answer for i, answer in enumerate(answers) if i not in random]
        theirs = iter(self.inner.answer_weights([_own(labelled) for labelled in rollouts], inner) if inner else [])
        ours = place_on_answers(answers, self.weight)
        return [ours[i] if i in random else next(theirs) for i in range(len(answers))]


def _own(labelled: LabelledRollout) -> LabelledRollout:
    """What `inner` has asked for: J at its own cuts, without the random one."""
    return replace(labelled, cuts=labelled.cuts[:-1], at_cuts=labelled.at_cuts[:-1])


def with_forced_answers(algorithm: Algorithm, weight: float) -> Algorithm:
    """The algorithm, with answers forced at random places trained beside it if `weight` is positive."""
    return cast(Algorithm, WithForcedAnswers(algorithm, weight)) if weight else algorithm
