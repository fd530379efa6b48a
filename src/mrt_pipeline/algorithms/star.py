"""STaR: likelihood on the traces that end correctly, iterated (arXiv 2203.14465).

    w_t = r                                   for every sampled token; no importance ratio, no baseline

A step is an iteration. As in the paper each iteration trains the base policy anew, on what the policy of the iteration
before sampled (`start_from = base`); with `start_from = current` it goes on from that policy.
What it depends on: whole traces, so every choice of the policy; where budget forcing put an extension in place of a
stop, that stop.
Differs from GRPO in that wrong traces carry no gradient.
Degenerate case: an iteration without a right trace leaves the base, or with `current` changes nothing.
"""

from collections.abc import Sequence
from typing import Literal

import numpy as np

from mrt_pipeline.algorithms.base import IteratedAlgorithm, columns, place
from mrt_pipeline.mrt import credit
from mrt_pipeline.rollouts.label import LabelledRollout


class STaR(IteratedAlgorithm):
    """See the module's docstring."""

    name: Literal["star"] = "star"

    def weights(self, rollouts: Sequence[LabelledRollout]) -> list[np.ndarray]:
        """See `Algorithm.weights`."""
        rewards, _, lengths = columns(rollouts)
        return place(credit.star(rewards, lengths), rollouts)
