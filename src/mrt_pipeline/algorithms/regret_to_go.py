"""Regret-to-go: the exact decomposition of the area under the anytime curve, episode by episode. Ours.

The area under the step-wise anytime curve up to a budget C, J held after the end of the trace, is

    area = J_0 + sum_i progress_i * (C - t_i) / C           t_i = thinking tokens at the end of episode i

so what the tokens of episode j can still change of it is

    G_j = sum_{i >= j} progress_i * (C - t_i) / C
    w_t = A + alpha * (G_t - b_t) / s                       for a thinking token t, G_t being that of its episode
    w_t = A - alpha * b_t / s                               for the tokens that end the stream of thinking: stopping is
                                                            a choice as well, after which nothing is gained
    w_t = A                                                 for the tokens of an answer that follows; r - J with
                                                            `expected_outcome`
    b_t = mean over the other rollouts of the group of their G at the same time (0 where they have ended)
    A   = r - mean(r of the group)                          s = root mean square of G - b over the batch

C is the training budget, or what `budget_multiples` says: beyond the training budget late progress counts for more, and
of several budgets G is the mean. With `expected_outcome` J at the end stands for r, as in `mrt_online`.

Progress early counts more than progress late because it is held longer; nothing is discounted by taste. Differs from
MRT-online by the weight of each progress and by the baseline across siblings.
The tokens that end the stream are the closing token; where the trace ends without it, or with its last attempt as the
answer (backtracking search), all that is left of the trace.
What it depends on: every thinking token, and stopping. G_t is what follows the choice at t, and b_t knows nothing of
that choice, so that for s = 1 the bonus has exactly the gradient of the expected area; a baseline on only some of the
choices at a place, as without the second line, would give another. Exact where the policy does not choose where J is
measured (episodes of fixed length); where its own words open an episode, they are not credited for that.
Degenerate cases: alpha = 0 is GRPO exactly (expected_outcome off); constant J gives no bonus; a group of one has no
baseline.
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


class RegretToGo(Algorithm):
    """See the module's docstring."""

    name: Literal["regret_to_go"] = "regret_to_go"
    alpha: NonNegative = Field(default=1.0, description="weight of the regret-to-go credit; 0 is GRPO")
    budget: TrainingBudget
    budget_multiples: list[PositiveFloat] = Field(
        default=[1.0],
        min_length=1,
        description="budgets up to which the area counts, in multiples of the training budget; of several the mean",
    )
    expected_outcome: bool = Field(default=True, description="as in mrt_online")
    needs_success: ClassVar[bool] = True

    def weights(self, rollouts: Rollouts) -> Weights:
        """See `Algorithm.weights`."""
        budgets = [self.budget * multiple for multiple in self.budget_multiples]
        given = (self.alpha, ending_tokens(rollouts), self.expected_outcome, answers_afterwards(rollouts))
        return place(credit.regret_to_go(*curves(rollouts), budgets, *given), rollouts)
