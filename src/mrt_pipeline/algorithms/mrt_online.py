"""MRT-online: progress of each episode as that episode's credit, on policy.

    w_t = A + alpha * D_j / s                 for a sampled thinking token t of episode j
    w_t = A                                   for the tokens that stop the thought and give the answer
    A   = r - mean(r of the group)
    D_j = sum_{i >= j} gamma^(i-j) [ J(z_0:i) - J(z_0:i-1) ]          discounted progress from episode j on
    s   = root mean square of D over the episodes of the batch        (1 if normalize_progress is off)

After the v0.1 release of MRT (traces sampled on policy, forced terminations branched at each boundary, dense progress
per episode). The release does not document how progress is spread over tokens or normalised; the two lines for D and s
are our choice. Differs from GRPO by the second term only.

Why the bonus does not cancel: it differs between the episodes of one rollout and is not centred by the group, unlike a
bonus r - J(prefix) with one shared J, which a group mean removes.
expected_outcome (ours) replaces the reward by its expectation where the prover knows it, which takes the noise of the
answer's sampling out of the thought's credit and leaves its mean alone:

    A   = J(z_0:k) - mean(J(z_0:k) of the group)        for thought and stop; k is the last boundary
    w_t = r - J(z_0:k)                                  for the tokens of the answer

J is the expectation of r where the answer is sampled after the thought has ended. A trace that ends without answering,
or that stopped because of its answer (backtracking search), keeps r for all of its tokens.
What it depends on: A on every choice; the bonus on what is thought in an episode and, with gamma, before it. With
gamma = 0, s = 1 and episodes of fixed length its expected gradient is that of the progress term of the paper's
objective, sum_j E_{z_j} [ J(c_j, z_j) - J(c_j) ], with the prefixes c_j as they were sampled and held fixed. Where the
policy's own words open an episode, they are not credited for ending the one before.
Degenerate cases: alpha = 0 is GRPO exactly (expected_outcome off); constant J gives no bonus; gamma = 1 with
normalize_progress off gives each episode J(end) - J(before it).
"""

from typing import ClassVar, Literal

from pydantic import Field

from mrt_pipeline.algorithms.base import Algorithm, Rollouts, Weights, answers_afterwards, curves, place
from mrt_pipeline.mrt import credit
from mrt_pipeline.registry import Fraction, NonNegative


class MRTOnline(Algorithm):
    """See the module's docstring."""

    name: Literal["mrt_online"] = "mrt_online"
    alpha: NonNegative = Field(default=1.0, description="weight of the progress bonus; 0 is GRPO")
    gamma: Fraction = Field(default=0.0, description="discount of later episodes' progress; 0 is raw progress")
    normalize_progress: bool = Field(
        default=True, description="divide discounted progress by its root mean square over the batch"
    )
    divide_by_std: bool = Field(default=False, description="as in grpo")
    expected_outcome: bool = Field(
        default=True, description="credit the thought with J at its end instead of the sampled 0/1 reward"
    )
    needs_success: ClassVar[bool] = True

    def weights(self, rollouts: Rollouts) -> Weights:
        """See `Algorithm.weights`."""
        how = self.model_dump(exclude={"name"})
        return place(credit.mrt_online(*curves(rollouts), **how, answered=answers_afterwards(rollouts)), rollouts)
