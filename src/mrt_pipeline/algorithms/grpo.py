"""GRPO: outcome reward with the group mean as baseline (arXiv 2402.03300).

    w_t = r - mean(r of the group)            for every sampled token t of the rollout

Without division by the group's standard deviation by default, as in Dr. GRPO (arXiv 2503.20783). It is the outcome
reward baseline of MRT: every token of a trace gets the same credit, whatever its episode did.
What it depends on: every choice of the trace. With groups of m the expected update is (m - 1) times the gradient of the
expected reward, as the mean holds the trace's own reward.
Degenerate case: a group whose rewards are all equal has weight 0 everywhere.
"""

from typing import Literal

from pydantic import Field

from mrt_pipeline.algorithms.base import Algorithm, Rollouts, Weights, columns, place
from mrt_pipeline.mrt import credit


class GRPO(Algorithm):
    """See the module's docstring."""

    name: Literal["grpo"] = "grpo"
    divide_by_std: bool = Field(
        default=False, description="divide group-centred rewards by the group's standard deviation"
    )

    def weights(self, rollouts: Rollouts) -> Weights:
        """See `Algorithm.weights`."""
        return place(credit.grpo(*columns(rollouts), self.divide_by_std), rollouts)
