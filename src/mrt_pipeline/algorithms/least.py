"""Least: an episode is worth the least of the J to come.

    w_t = A + alpha * (L_t - b_t) / s         for a thinking token t, L_t being that of its episode, and for the tokens
                                              that end the stream of thinking, whose L is J at the end
    w_t = A                                   for the tokens of an answer that follows; r - J with `expected_outcome`
    L_j = min_{i >= j} J(z_0:i)                                       from the end of episode j to the end of the trace
    b_t = mean over the other rollouts of the group of their L at the same time, J at the end where they have ended
    A   = r - mean(r of the group)            with `expected_outcome` J at the end instead of r, as in `mrt_online`
    s   = root mean square of L - b over the batch

After PURE (arXiv 2504.15275), where the value of a step is the least, not the sum, of the process rewards to come; J in
place of a reward model's scores, and the two lines for b and s, are ours. Finding something and keeping it is worth
more than finding and losing it, and later progress does not make up for what is lost before.
Differs from regret-to-go by L in place of the area to go.
What it depends on: every thinking token, and stopping. For s = 1 the expected gradient of the second term at each place
is that of the expected L from there on; it is no gradient of one number of the whole trace.
Degenerate cases: alpha = 0 is GRPO exactly (expected_outcome off); constant J gives no bonus; a group of one has no
baseline.
"""

from typing import ClassVar, Literal

from pydantic import Field

from mrt_pipeline.algorithms.base import (
    Algorithm,
    Rollouts,
    Weights,
    answers_afterwards,
    curves,
    ending_tokens,
    place,
)
from mrt_pipeline.mrt import credit
from mrt_pipeline.registry import NonNegative


class Least(Algorithm):
    """See the module's docstring."""

    name: Literal["least"] = "least"
    alpha: NonNegative = Field(default=1.0, description="weight of the least J to come; 0 is GRPO")
    expected_outcome: bool = Field(default=True, description="as in mrt_online")
    needs_success: ClassVar[bool] = True

    def weights(self, rollouts: Rollouts) -> Weights:
        """See `Algorithm.weights`."""
        given = (self.alpha, self.expected_outcome, answers_afterwards(rollouts), ending_tokens(rollouts))
        return place(credit.least(*curves(rollouts), *given), rollouts)
