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

import numpy as np

from mrt_pipeline.algorithms.base import Algorithm
from mrt_pipeline.rollouts.label import ForcedAnswer, LabelledRollout


class BRPO(Algorithm):
    """See the module's docstring. slots: S. budget: C in thinking tokens. answer_weight: as there."""

    name = "brpo"

    def __init__(self, slots: int, answer_weight: float, budget: int):
        self.budgets = np.unique(np.round(budget * np.arange(1, slots + 1) / slots).astype(np.int64))
        self.answer_weight = answer_weight

    def cuts(self, labelled: LabelledRollout, rng: np.random.Generator) -> list[int]:
        """The budgets, or the end of the thought where that is earlier."""
        return np.minimum(self.budgets, len(labelled.rollout.thought)).tolist()

    def answers(self, labelled: LabelledRollout) -> list[int]:
        """The budgets that are shorter than the thought."""
        return [int(budget) for budget in self.budgets if budget < len(labelled.rollout.thought)]

    def weights(self, rollouts: Sequence[LabelledRollout]) -> list[np.ndarray]:
        """See `Algorithm.weights`."""
        success = np.stack([labelled.at_cuts for labelled in rollouts])
        groups = np.array([labelled.rollout.group for labelled in rollouts])
        advantages = np.empty_like(success)
        for group in np.unique(groups):
            advantages[groups == group] = budget_relative_advantages(success[groups == group])
        result = []
        for labelled, advantage, q in zip(rollouts, advantages, success, strict=True):
            rollout = labelled.rollout
            n = len(rollout.thought)
            slots = np.searchsorted(self.budgets, np.arange(1, n + 2)).clip(max=len(self.budgets) - 1)
            weights = rollout.per_token(advantage[slots[:n]], self.answer_weight * (rollout.reward - q[-1]))
            weights[n : n + len(rollout.close)] = advantage[slots[n]]
            result.append(weights)
        return result

    def answer_weights(self, rollouts: Sequence[LabelledRollout], answers: Sequence[ForcedAnswer]) -> list[np.ndarray]:
        """answer_weight * (r - J)."""
        return [
            answer.rollout.per_token(0.0, self.answer_weight * (answer.rollout.reward - answer.success))
            for answer in answers
        ]


def budget_relative_advantages(success: np.ndarray) -> np.ndarray:
    """A of the module's docstring: success q (traces of one group, slots) in, advantages of the same shape out."""
    n_slots = success.shape[1]
    to_go = np.cumsum(success[:, ::-1], axis=1)[:, ::-1] / n_slots  # R
    advantages = np.empty_like(to_go)
    for slot in range(n_slots):
        weights = 2.0 ** np.arange(slot)
        so_far = success[:, :slot] @ weights / weights.sum() if slot else 0.0
        held = so_far * (n_slots - slot) / n_slots  # V1
        baseline = slot / n_slots * held + (n_slots - slot) / n_slots * to_go[:, slot].mean()
        advantages[:, slot] = to_go[:, slot] - baseline
    return advantages
