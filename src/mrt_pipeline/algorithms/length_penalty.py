"""GRPO with a length penalty: correct and short beats correct and long.

    r' = r (1 - alpha * sigmoid((L - mean L) / std L))        L = thinking tokens; mean and std over the right rollouts
    w_t = r' - mean(r' of the group)                          of the group

The penalty of Arora & Zanette (arXiv 2502.04463). The MRT paper has a length penalty as an ablation without giving its
form in what could be read of it, so this is one such baseline, not a reproduction of that row.
What it depends on: every choice of the trace, by its reward and its length.
Degenerate cases: alpha = 0 is GRPO exactly; wrong rollouts are not penalised; a group whose right rollouts have equal
length is only rescaled.
"""

from collections.abc import Sequence

import numpy as np

from mrt_pipeline.algorithms.base import Algorithm, center_by_group
from mrt_pipeline.rollouts.label import LabelledRollout


class LengthPenalty(Algorithm):
    """See the module's docstring. alpha in [0, 1]."""

    name = "length_penalty"

    def __init__(self, alpha: float):
        self.alpha = alpha

    def weights(self, rollouts: Sequence[LabelledRollout]) -> list[np.ndarray]:
        """See `Algorithm.weights`."""
        rewards = np.array([labelled.rollout.reward for labelled in rollouts])
        lengths = np.array([len(labelled.rollout.thought) for labelled in rollouts], dtype=np.float64)
        groups = np.array([labelled.rollout.group for labelled in rollouts])
        for group in np.unique(groups):
            right = (groups == group) & (rewards > 0)
            if right.any():
                relative = (lengths[right] - lengths[right].mean()) / max(float(lengths[right].std()), 1e-6)
                rewards[right] *= 1 - self.alpha / (1 + np.exp(-relative))
        advantages = center_by_group(rewards, groups)
        return [
            labelled.rollout.per_token(advantage, advantage)
            for labelled, advantage in zip(rollouts, advantages, strict=True)
        ]
