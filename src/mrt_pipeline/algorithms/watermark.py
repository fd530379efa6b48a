"""Watermark: progress counts only above the best J so far.

    w_t = A + alpha * M_j / s                 for a sampled thinking token t of episode j
    w_t = A                                   for the tokens that stop the thought and give the answer
    M_j = max(0, J(z_0:j) - max_{i < j} J(z_0:i))                     what episode j adds to the best J so far
    A   = r - mean(r of the group)            with `expected_outcome` J at the end instead of r, as in `mrt_online`
    s   = root mean square of M over the episodes of the batch

Our reading of the abstract of MIG (arXiv 2602.01034); what it adds to the outcome there could not be read.
Differs from MRT-online with gamma = 0 by M in place of progress: losing what was found costs nothing here, and finding
it again earns nothing. The sum of M over a trace is its best J minus J at its start.
What it depends on: A on every choice; M on what is thought in an episode. For s = 1 and episodes of fixed length the
expected gradient of the second term is that of sum_j E_{z_j} [ M_j ], the prefixes held fixed as they were sampled.
Degenerate cases: alpha = 0 is GRPO exactly (expected_outcome off); J that never rises gives no bonus; where J never
falls it is MRT-online with gamma = 0.
"""

from typing import ClassVar, Literal

from pydantic import Field

from mrt_pipeline.algorithms.base import Algorithm, Rollouts, Weights, answers_afterwards, curves, place
from mrt_pipeline.mrt import credit
from mrt_pipeline.registry import NonNegative


class Watermark(Algorithm):
    """See the module's docstring."""

    name: Literal["watermark"] = "watermark"
    alpha: NonNegative = Field(default=1.0, description="weight of what is added to the best J so far; 0 is GRPO")
    expected_outcome: bool = Field(default=True, description="as in mrt_online")
    needs_success: ClassVar[bool] = True

    def weights(self, rollouts: Rollouts) -> Weights:
        """See `Algorithm.weights`."""
        answered = answers_afterwards(rollouts)
        return place(credit.watermark(*curves(rollouts), self.alpha, self.expected_outcome, answered), rollouts)
