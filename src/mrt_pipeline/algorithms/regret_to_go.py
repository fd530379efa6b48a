"""Regret-to-go: the exact decomposition of the area under the anytime curve, episode by episode. Ours.

The area under the step-wise anytime curve up to the training budget C, J held after the end of the trace, is

    area = J_0 + sum_i progress_i * (C - t_i) / C           t_i = thinking tokens at the end of episode i

so what the tokens of episode j can still change of it is

    G_j = sum_{i >= j} progress_i * (C - t_i) / C
    w_t = A + alpha * (G_j - b_j) / s                       for a sampled thinking token t of episode j
    w_t = A                                                 for the tokens that stop the thought and give the answer
    b_j = mean over the other rollouts of the group of their G at the same time (0 where they have ended)
    A   = r - mean(r of the group)                          s = root mean square of G - b over the batch

Progress early counts more than progress late because it is held longer; nothing is discounted by taste. Differs from
MRT-online by the weight of each progress and by the baseline across siblings.
Degenerate cases: alpha = 0 is GRPO exactly; constant J gives no bonus; a group of one has no baseline.
"""

from collections.abc import Sequence

import numpy as np

from mrt_pipeline.algorithms.base import Algorithm, group_advantages
from mrt_pipeline.mrt.episodes import token_episodes
from mrt_pipeline.mrt.progress import progress
from mrt_pipeline.rollouts.label import LabelledRollout


class RegretToGo(Algorithm):
    """See the module's docstring. budget: C in thinking tokens."""

    name = "regret_to_go"
    needs_success = True

    def __init__(self, alpha: float, budget: int):
        self.alpha, self.budget = alpha, budget

    def weights(self, rollouts: Sequence[LabelledRollout]) -> list[np.ndarray]:
        """See `Algorithm.weights`."""
        advantages = group_advantages(rollouts)
        groups = np.array([labelled.rollout.group for labelled in rollouts])
        credit = np.zeros((len(rollouts), max(1, *(len(labelled.rollout.thought) for labelled in rollouts))))
        for row, labelled in enumerate(rollouts):  # G of every thinking token, 0 after the end
            to_go = area_to_go(labelled.boundaries, labelled.success, self.budget)
            credit[row, : len(labelled.rollout.thought)] = to_go[token_episodes(labelled.boundaries)]
        for group in np.unique(groups):
            members = np.flatnonzero(groups == group)
            if len(members) > 1:
                total = credit[members].sum(axis=0)
                credit[members] -= (total - credit[members]) / (len(members) - 1)
        inside = [credit[row, : len(labelled.rollout.thought)] for row, labelled in enumerate(rollouts)]
        scale = max(float(np.sqrt(np.mean(np.concatenate(inside) ** 2))), 1e-6) if any(map(len, inside)) else 1.0
        return [
            labelled.rollout.per_token(advantage + self.alpha / scale * values, advantage)
            for labelled, advantage, values in zip(rollouts, advantages, inside, strict=True)
        ]


def area_to_go(boundaries: np.ndarray, success: np.ndarray, budget: int) -> np.ndarray:
    """G_j of each episode: what its progress and that of later episodes add to the area under the anytime curve.

    boundaries, success: (k + 1,). Returns (k,). Progress beyond the budget adds nothing.
    """
    held = np.clip(budget - np.asarray(boundaries[1:], dtype=np.float64), 0, None) / budget
    return np.cumsum((progress(success) * held)[::-1])[::-1]
