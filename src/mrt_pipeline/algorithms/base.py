"""What an algorithm is here: a credit assignment. Labelled rollouts in, one weight per token out."""

from collections.abc import Sequence
from typing import Protocol

import numpy as np

from mrt_pipeline.rollouts.label import LabelledRollout


class Algorithm(Protocol):
    """A credit assignment. It never sees the optimiser.

    needs_success: whether J at the episode boundaries is needed; without it `success` may be empty.
    """

    name: str
    needs_success: bool

    def weights(self, rollouts: Sequence[LabelledRollout]) -> list[np.ndarray]:
        """A weight for every token after the prompt (thought, close, answer) of every rollout of a batch.

        The learner ignores the weights of tokens that the policy did not sample.
        """
        ...


def group_advantages(rollouts: Sequence[LabelledRollout], divide_by_std: bool = False) -> np.ndarray:
    """Outcome reward minus the mean of its group, (len(rollouts),); optionally over the group's standard deviation.

    Groups in which all rewards are equal get 0 everywhere.
    """
    rewards = np.array([labelled.rollout.reward for labelled in rollouts])
    groups = np.array([labelled.rollout.group for labelled in rollouts])
    advantages = np.zeros(len(rewards))
    for group in np.unique(groups):
        members = groups == group
        centred = rewards[members] - rewards[members].mean()
        if divide_by_std:
            centred = centred / max(float(centred.std()), 1e-6)
        advantages[members] = centred
    return advantages
