"""MRT, the paper's RL form: thinking on from a stale prefix against answering at once (arXiv 2503.07572, section 6).

A prefix c of each problem was sampled by an earlier policy and cut after a random number of episodes; J(c) was measured
then. Half of the group thinks on from c and then answers, the other half answers at once. Progress of thinking on is
r - J(c). The prefix is never trained. The paper's text, its figure and its early release describe the advantage in
three ways that are not equivalent:

    bonus = continue      r' = r + alpha (r - J(c)) if the rollout thinks on, else r;   w = r' - mean(r' of the group)
    bonus = all           r' = r + alpha (r - J(c)) for both halves;                    w = r' - mean(r' of the group)
    bonus = termination   w = (1 + alpha) (r - J(c)) for both halves

`continue` is the default: it is the one that does what the objective says, rewarding progress besides the outcome. Its
expected weight on thinking on is ((1 + alpha) p - alpha J - q) / 2, for success p of thinking on and q of answering at
once, so alpha raises thinking on where it makes progress. In `all` the group mean removes J and alpha only scales the
update: it is GRPO on the mixed group, times 1 + alpha. In `termination` the J of the prefix is the baseline, and alpha
only scales as well.
The group's standard deviation is never divided by; in `all` it would remove alpha altogether.
Differs from GRPO by the prefixes, by the mixed groups, and by the bonus.
Degenerate cases: alpha = 0 is GRPO on the mixed group (but for `termination`); constant J and r give no bonus.
"""

from collections.abc import Sequence

import numpy as np

from mrt_pipeline.algorithms.base import Algorithm, center_by_group
from mrt_pipeline.rollouts.label import LabelledRollout

BONUSES = ("continue", "all", "termination")


class MRT(Algorithm):
    """See the module's docstring for alpha and bonus. refresh_every: steps after which new prefixes are sampled."""

    name = "mrt"

    def __init__(self, alpha: float, bonus: str, refresh_every: int):
        if bonus not in BONUSES:
            raise ValueError(f"unknown bonus {bonus!r}; expected one of {', '.join(BONUSES)}")
        if refresh_every < 1:
            raise ValueError(f"refresh_every must be at least 1, got {refresh_every}")
        self.alpha, self.bonus, self.refresh_every = alpha, bonus, refresh_every

    def weights(self, rollouts: Sequence[LabelledRollout]) -> list[np.ndarray]:
        """See `Algorithm.weights`."""
        rewards = np.array([labelled.rollout.reward for labelled in rollouts])
        progress = rewards - np.array([labelled.prefix.success for labelled in rollouts])
        groups = np.array([labelled.rollout.group for labelled in rollouts])
        if self.bonus == "termination":
            advantages = (1 + self.alpha) * progress
        else:
            gets_bonus = np.array([self.bonus == "all" or not labelled.direct for labelled in rollouts])
            advantages = center_by_group(rewards + self.alpha * progress * gets_bonus, groups)
        return [
            labelled.rollout.per_token(advantage, advantage)
            for labelled, advantage in zip(rollouts, advantages, strict=True)
        ]
