"""Saturation: outcome credit shrinks where J is near 1 already, as nothing is left to gain there.

    w_t = A * (1 - J(z_0:j-1))                for a sampled thinking token t of episode j
    w_t = A * (1 - J(z_0:k))                  for the tokens that stop the thought; k is the last boundary
    w_t = r - J(z_0:k)                        for the tokens of the answer; A without expected_outcome
    A   = J(z_0:k) - mean(J(z_0:k) of the group)    without `expected_outcome`, and as in `mrt_online`, r in place of J

After SPAE (arXiv 2601.03823), which reduces outcome credit once its potential saturates; the factor 1 - J is ours, and
so is that J is the meta-prover's. Its credit by differences of the potential is `mrt_online`'s here, and left out.
Differs from GRPO with expected outcome by the factor.
What it depends on: every choice of the trace. The factor is given before a choice is made, so that the expected
gradient at each place is that of GRPO there, times the factor: places where J is near 1 are left as they are.
Degenerate cases: J = 0 before the end is GRPO; J = 1 at the start trains no thinking at all.
"""

from typing import ClassVar, Literal

from pydantic import Field

from mrt_pipeline.algorithms.base import Algorithm, Rollouts, Weights, answers_afterwards, curves, place
from mrt_pipeline.mrt import credit


class Saturation(Algorithm):
    """See the module's docstring."""

    name: Literal["saturation"] = "saturation"
    expected_outcome: bool = Field(default=True, description="as in mrt_online")
    needs_success: ClassVar[bool] = True

    def weights(self, rollouts: Rollouts) -> Weights:
        """See `Algorithm.weights`."""
        answered = answers_afterwards(rollouts)
        return place(credit.saturation(*curves(rollouts), self.expected_outcome, answered), rollouts)
