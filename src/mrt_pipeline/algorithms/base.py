"""What an algorithm is here: a credit assignment. Labelled rollouts in, one weight per token out."""

from collections.abc import Sequence
from typing import ClassVar

import numpy as np

from mrt_pipeline.rollouts.label import ForcedAnswer, LabelledRollout
from mrt_pipeline.rollouts.rollout import Rollout


class Algorithm:
    """A credit assignment. It says what it needs to see, and never sees the optimiser.

    name: as in the configuration.
    needs_success: whether J at the episode boundaries is needed; without it `success` is empty.
    likelihood: the weights are of log-likelihood (STaR), so there is no importance ratio.
    refresh_every: if positive, rollouts start from stale prefixes: half of each group thinks on from there and half
        answers at once. So often, in steps, new prefixes are sampled by the policy of that time.
    """

    name: ClassVar[str]
    needs_success: bool = False
    likelihood: bool = False
    refresh_every: int = 0

    def weights(self, rollouts: Sequence[LabelledRollout]) -> list[np.ndarray]:
        """A weight for every token after the prompt (thought, close, answer) of every rollout of a batch.

        The learner ignores the weights of tokens that the policy did not sample.
        """
        raise NotImplementedError

    def cuts(self, rollout: Rollout, rng: np.random.Generator) -> Sequence[int]:
        """Where J is wanted besides the episode boundaries, in thinking tokens: it comes back as `at_cuts`."""
        return ()

    def answers(self, labelled: LabelledRollout) -> Sequence[int]:
        """Where in the thought to force an answer that is to be trained, in thinking tokens."""
        return ()

    def answer_weights(self, rollouts: Sequence[LabelledRollout], answers: Sequence[ForcedAnswer]) -> list[np.ndarray]:
        """A weight for every token after the prompt of every forced answer; only asked if there are any."""
        raise NotImplementedError


def center_by_group(values: np.ndarray, groups: np.ndarray, divide_by_std: bool = False) -> np.ndarray:
    """Values minus the mean of their group, optionally over the group's standard deviation: (n,) for two (n,).

    Groups in which all values are equal get 0 everywhere.
    """
    centred = np.zeros(len(values))
    for group in np.unique(groups):
        members = groups == group
        centred[members] = values[members] - values[members].mean()
        if divide_by_std:
            centred[members] /= max(float(centred[members].std()), 1e-6)
    return centred


def group_advantages(
    rollouts: Sequence[LabelledRollout], divide_by_std: bool = False, outcomes: Sequence[float] | None = None
) -> np.ndarray:
    """Outcome reward minus the mean of its group, (len(rollouts),); see `center_by_group`.

    outcomes: to take in place of the sampled rewards.
    """
    if outcomes is None:
        outcomes = [labelled.rollout.reward for labelled in rollouts]
    groups = np.array([labelled.rollout.group for labelled in rollouts])
    return center_by_group(np.array(outcomes), groups, divide_by_std)
