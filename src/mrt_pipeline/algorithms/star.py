"""STaR: likelihood on the traces that end correctly, iterated (arXiv 2203.14465).

    w_t = r                                   for every sampled token; no importance ratio, no baseline

A step is an iteration. As in the paper each iteration trains the base policy anew, on what the policy of the iteration
before sampled (`start_from = base`); with `start_from = current` it goes on from that policy.
What it depends on: whole traces, so every choice of the policy; where budget forcing put an extension in place of a
stop, that stop.
Differs from GRPO in that wrong traces carry no gradient.
Degenerate case: an iteration without a right trace leaves the base, or with `current` changes nothing.
"""

from typing import Literal

from mrt_pipeline.algorithms.base import IteratedAlgorithm, Rollouts, Weights, columns, place
from mrt_pipeline.mrt import credit


class STaR(IteratedAlgorithm):
    """See the module's docstring."""

    name: Literal["star"] = "star"

    def weights(self, rollouts: Rollouts) -> Weights:
        """See `Algorithm.weights`."""
        rewards, _, lengths = columns(rollouts)
        return place(credit.star(rewards, lengths), rollouts)
