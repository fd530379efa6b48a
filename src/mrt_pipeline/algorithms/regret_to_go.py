"""Regret-to-go: the exact decomposition of the area under the anytime curve, episode by episode. Ours.

The area under the step-wise anytime curve up to the training budget C, J held after the end of the trace, is

    area = J_0 + sum_i progress_i * (C - t_i) / C           t_i = thinking tokens at the end of episode i

so what the tokens of episode j can still change of it is

    G_j = sum_{i >= j} progress_i * (C - t_i) / C
    w_t = A + alpha * (G_t - b_t) / s                       for a thinking token t, G_t being that of its episode
    w_t = A - alpha * b_t / s                               for the tokens that end the stream of thinking: stopping is
                                                            a choice as well, after which nothing is gained
    w_t = A                                                 for the tokens of an answer that follows
    b_t = mean over the other rollouts of the group of their G at the same time (0 where they have ended)
    A   = r - mean(r of the group)                          s = root mean square of G - b over the batch

Progress early counts more than progress late because it is held longer; nothing is discounted by taste. Differs from
MRT-online by the weight of each progress and by the baseline across siblings.
The tokens that end the stream are the closing token; where the trace ends without it, or with its last attempt as the
answer (backtracking search), all that is left of the trace.
What it depends on: every thinking token, and stopping. G_t is what follows the choice at t, and b_t knows nothing of
that choice, so that for s = 1 the bonus has exactly the gradient of the expected area; a baseline on only some of the
choices at a place, as without the second line, would give another. Exact where the policy does not choose where J is
measured (episodes of fixed length); where its own words open an episode, they are not credited for that.
Degenerate cases: alpha = 0 is GRPO exactly; constant J gives no bonus; a group of one has no baseline.
"""

from collections.abc import Sequence

import numpy as np

from mrt_pipeline.algorithms.base import Algorithm, group_advantages
from mrt_pipeline.mrt.episodes import token_episodes
from mrt_pipeline.mrt.progress import progress
from mrt_pipeline.rollouts.label import LabelledRollout
from mrt_pipeline.rollouts.rollout import Rollout


class RegretToGo(Algorithm):
    """See the module's docstring. budget: C in thinking tokens."""

    name = "regret_to_go"
    needs_success = True

    def __init__(self, alpha: float, budget: int):
        self.alpha, self.budget = alpha, budget

    def weights(self, rollouts: Sequence[LabelledRollout]) -> list[np.ndarray]:
        """See `Algorithm.weights`."""
        advantages = group_advantages(rollouts)
        bonuses = centred_area_to_go(rollouts, self.budget)
        pooled = np.concatenate(bonuses)
        scale = max(float(np.sqrt(np.mean(pooled**2))) if len(pooled) else 0.0, 1e-6)
        weights = [labelled.rollout.per_token(a, a) for labelled, a in zip(rollouts, advantages, strict=True)]
        for values, bonus in zip(weights, bonuses, strict=True):
            values[: len(bonus)] += self.alpha / scale * bonus
        return weights


def centred_area_to_go(rollouts: Sequence[LabelledRollout], budget: int) -> list[np.ndarray]:
    """G_t - b_t of the module's docstring, for each rollout's thinking tokens and those that end its stream."""
    groups = np.array([labelled.rollout.group for labelled in rollouts])
    lengths = [len(labelled.rollout.thought) + _ending(labelled.rollout) for labelled in rollouts]
    credit = np.zeros((len(rollouts), max(lengths, default=0)))
    for row, labelled in enumerate(rollouts):  # G of every thinking token, 0 after the end
        to_go = area_to_go(labelled.boundaries, labelled.success, budget)
        credit[row, : len(labelled.rollout.thought)] = to_go[token_episodes(labelled.boundaries)]
    for group in np.unique(groups):
        members = np.flatnonzero(groups == group)
        if len(members) > 1:
            total = credit[members].sum(axis=0)
            credit[members] -= (total - credit[members]) / (len(members) - 1)
    return [credit[row, :length] for row, length in enumerate(lengths)]


def _ending(rollout: Rollout) -> int:
    """Tokens after the thought that were chosen while the policy might still have thought on."""
    if rollout.stop_reason == "length":
        return 0
    return 1 if len(rollout.close) else len(rollout.answer)


def area_to_go(boundaries: np.ndarray, success: np.ndarray, budget: int) -> np.ndarray:
    """G_j of each episode: what its progress and that of later episodes add to the area under the anytime curve.

    boundaries, success: (k + 1,). Returns (k,). Progress beyond the budget adds nothing.
    """
    held = np.clip(budget - np.asarray(boundaries[1:], dtype=np.float64), 0, None) / budget
    return np.cumsum((progress(success) * held)[::-1])[::-1]
