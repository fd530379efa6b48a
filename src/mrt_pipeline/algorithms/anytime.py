"""Anytime: the exact gradient of J at the end and of the anytime area, against siblings that had as much to gain. Ours.

The objective is J where the thought ends, plus alpha times the mean over several budgets C of the area under the
step-wise anytime curve up to C, J held after the end. What the tokens of episode j can still change of it is

    X_j = sum_{i >= j} progress_i * (1 + alpha * mean_C max(0, C - t_i) / C)      t_i = thinking tokens at the end of i
    w_t = (X_t - (1 - J_t) b_t) / s           for a thinking token t, X_t being that of its episode
    w_t = -(1 - J_t) b_t / s                  for the tokens that end the stream of thinking: nothing changes after them
    w_t = r - J(z_0:k)                        for the tokens of an answer that follows; k is the last boundary
    b_t = sum of X_t (1 - J_t) / (1 + sum of (1 - J_t)^2), over the other rollouts of the group still choosing at t
    J_t = J at the last boundary before t     s = root mean square of X - (1 - J) b over the batch

A trace that ends without answering, or that stopped because of its answer (backtracking search), has its reward in
place of the last J. Budgets beyond the training budget count what is found late for nearly as much as what is found
early, budgets below it do not count it at all.
Two things differ from regret-to-go. The outcome is one more budget, infinite, so that choices are credited with what
comes after them only. And the baseline knows J: who has found the answer (J near 1) can neither gain nor, mostly, lose,
and is compared with nothing; with the mean of siblings that still search, every choice after a find was pushed down.
(b is a line through 0, fitted to what the siblings gained by what they had to gain; the 1 draws it to 0 where they had
next to nothing to gain.)
What it depends on: every thinking token, and stopping. X_t is what follows the choice at t; J_t and b_t know nothing of
that choice, so that for s = 1 the expected gradient is exactly that of the objective. Exact where the policy does not
choose where J is measured (episodes of fixed length); where its own words open an episode, they are not credited for
that.
Degenerate cases: alpha = 0 is outcome credit with this baseline; constant J gives no weight to thinking; a group of one
has no baseline.
"""

from typing import ClassVar, Literal

from pydantic import Field

from mrt_pipeline.algorithms.base import (
    Algorithm,
    Rollouts,
    TrainingBudget,
    Weights,
    answers_afterwards,
    curves,
    ending_tokens,
    place,
)
from mrt_pipeline.mrt import credit
from mrt_pipeline.registry import NonNegative, PositiveFloat


class Anytime(Algorithm):
    """See the module's docstring."""

    name: Literal["anytime"] = "anytime"
    alpha: NonNegative = Field(default=1.0, description="weight of the area beside J at the end; 0 is outcome credit")
    budget: TrainingBudget
    budget_multiples: list[PositiveFloat] = Field(
        default=[0.25, 0.5, 1.0, 2.0, 4.0],
        min_length=1,
        description="the budgets C, in multiples of the training budget",
    )
    needs_success: ClassVar[bool] = True

    def weights(self, rollouts: Rollouts) -> Weights:
        """See `Algorithm.weights`."""
        budgets = [self.budget * multiple for multiple in self.budget_multiples]
        given = (budgets, self.alpha, answers_afterwards(rollouts), ending_tokens(rollouts))
        return place(credit.anytime(*curves(rollouts), *given), rollouts)
