"""GRPO: outcome reward with the group mean as baseline (arXiv 2402.03300).

    w_t = r - mean(r of the group)            for every sampled token t of the rollout

Without division by the group's standard deviation by default, as in Dr. GRPO (arXiv 2503.20783). It is the outcome
reward baseline of MRT: every token of a trace gets the same credit, whatever its episode did.
What it depends on: every choice of the trace. With groups of m the expected update is (m - 1) times the gradient of the
expected reward, as the mean holds the trace's own reward.
Degenerate case: a group whose rewards are all equal has weight 0 everywhere.
"""

from collections.abc import Sequence

import numpy as np

from mrt_pipeline.algorithms.base import Algorithm, group_advantages
from mrt_pipeline.rollouts.label import LabelledRollout


class GRPO(Algorithm):
    """See the module's docstring. divide_by_std: also divide by the standard deviation of the group."""

    name = "grpo"

    def __init__(self, divide_by_std: bool = False):
        self.divide_by_std = divide_by_std

    def weights(self, rollouts: Sequence[LabelledRollout]) -> list[np.ndarray]:
        """See `Algorithm.weights`."""
        advantages = group_advantages(rollouts, self.divide_by_std)
        return [
            labelled.rollout.per_token(advantage, advantage)
            for labelled, advantage in zip(rollouts, advantages, strict=True)
        ]
