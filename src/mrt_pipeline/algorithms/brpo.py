"""BRPO: AnytimeReasoner's budget-relative objective (arXiv 2505.13438), the strongest competitor.

A thought is stopped at S budgets b_1 < ... < b_S = C, and the objective is success averaged over them. With q_s the
success J of a trace stopped at b_s (its own end, if that is earlier), and P_s = 1/S the weight of a budget:

    R_s  = sum_{t >= s} P_t q_t                                   what the tokens of slot s can still change
    V1_s = (sum_{t < s} 2^t q_t / sum_{t < s} 2^t) sum_{t >= s} P_t        success so far, held; 0 in the first slot
    V2_s = mean of R_s over the group
    A_s  = R_s - [ (s - 1)/S V1_s + (S - s + 1)/S V2_s ]          s = 1..S
    w_t  = A_s                                for a thinking token t of slot s, and for the end of the thought
    w_t  = answer_weight * (r - J)            for the tokens of the trace's own answer, and of an answer forced at each
                                              budget that is shorter than the thought

Thinking and answering are decoupled, as in the paper; nothing is divided by a standard deviation. Ours: the baseline of
an answer is the prover's J at the same place, where the original takes the mean of four answers given there; with J
known one answer at each budget is enough.
Differs from GRPO by the credit of each slot instead of each trace, and from `regret_to_go` by budgets instead of
episode boundaries, by the baselines, and by having no outcome term of its own.
What it depends on: a slot's credit on what is thought in it and after it, and on stopping; an answer's on that answer.
Degenerate cases: a group of equal traces with constant J has weight 0 on its thoughts.
"""

from collections.abc import Sequence
from typing import Literal

import numpy as np
from pydantic import Field

from mrt_pipeline.algorithms.base import Algorithm, Rollouts, TrainingBudget, Weights, columns, place, place_on_answers
from mrt_pipeline.mrt import credit
from mrt_pipeline.registry import NonNegative, PositiveInt
from mrt_pipeline.rollouts.label import ForcedAnswer, LabelledRollout


class BRPO(Algorithm):
    """See the module's docstring."""

    name: Literal["brpo"] = "brpo"
    slots: PositiveInt = Field(
        default=4, description="budgets at which a thought is stopped, evenly spaced up to the training budget"
    )
    answer_weight: NonNegative = Field(default=1.0, description="weight of training the answers")
    budget: TrainingBudget

    @property
    def budgets(self) -> np.ndarray:
        """b_1, ..., b_S: fewer than `slots` if there are fewer tokens."""
        return np.unique(np.round(self.budget * np.arange(1, self.slots + 1) / self.slots).astype(np.int64))

    def cuts(self, labelled: LabelledRollout, rng: np.random.Generator) -> list[int]:
        """The budgets, or the end of the thought where that is earlier."""
        return np.minimum(self.budgets, len(labelled.rollout.thought)).tolist()

    def answers(self, labelled: LabelledRollout) -> list[int]:
        """The budgets that are shorter than the thought."""
        return [int(budget) for budget in self.budgets if budget < len(labelled.rollout.thought)]

    def weights(self, rollouts: Rollouts) -> Weights:
        """See `Algorithm.weights`."""
        success = np.stack([labelled.at_cuts for labelled in rollouts])
        return place(credit.brpo(*columns(rollouts), success, self.budgets, self.answer_weight), rollouts)

    def answer_weights(self, rollouts: Rollouts, answers: Sequence[ForcedAnswer]) -> Weights:
        """answer_weight * (r - J)."""
        return place_on_answers(answers, self.answer_weight)
