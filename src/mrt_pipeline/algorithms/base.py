"""What an algorithm is here: a credit assignment. Labelled rollouts in, one weight per token out."""

from collections.abc import Sequence
from typing import ClassVar

import numpy as np

from mrt_pipeline.rollouts.label import ForcedAnswer, LabelledRollout


class Algorithm:
    """A credit assignment. It says what it needs to see, and never sees the optimiser.

    name: as in the configuration.
    needs_success: whether J at the episode boundaries is needed; without it `success` is empty.
    likelihood: the weights are of log-likelihood (STaR), so there is no importance ratio.
    refresh_every: if positive, rollouts start from stale prefixes: half of each group thinks on from there and half
        answers at once. So often, in steps, new prefixes are sampled by the policy of that time.
    from_base: every step trains the base policy anew, on what the policy of the last step sampled.
    """

    name: ClassVar[str]
    needs_success: bool = False
    likelihood: bool = False
    refresh_every: int = 0
    from_base: bool = False

    def weights(self, rollouts: Sequence[LabelledRollout]) -> list[np.ndarray]:
        """A weight for every token after the prompt (thought, close, answer) of every rollout of a batch.

        It is the weight of what the policy chose at that place: the token, or the stop that budget forcing put an
        extension in place of. The learner ignores weights where the policy chose nothing.
        """
        raise NotImplementedError

    def cuts(self, labelled: LabelledRollout, rng: np.random.Generator) -> Sequence[int]:
        """Where J is wanted besides the episode boundaries, in thinking tokens: it comes back as `at_cuts`.

        labelled: without J yet.
        """
        return ()

    def answers(self, labelled: LabelledRollout) -> Sequence[int]:
        """Where in the thought to force an answer that is to be trained, in thinking tokens."""
        return ()

    def answer_weights(self, rollouts: Sequence[LabelledRollout], answers: Sequence[ForcedAnswer]) -> list[np.ndarray]:
        """A weight for every token after the prompt of every forced answer; only asked if there are any."""
        raise NotImplementedError


def check_start(start_from: str) -> bool:
    """Whether iterations start from the base policy: `start_from` is base, not current. ValueError for others."""
    if start_from not in ("base", "current"):
        raise ValueError(f"unknown start_from {start_from!r}; expected base or current")
    return start_from == "base"


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
