"""STaR: likelihood on the traces that end correctly, iterated (arXiv 2203.14465).

    w_t = r                                   for every sampled token; no importance ratio, no baseline

Differs from GRPO in that wrong traces carry no gradient.
Degenerate case: an iteration without a right trace changes nothing.
"""

from collections.abc import Sequence

import numpy as np

from mrt_pipeline.algorithms.base import Algorithm
from mrt_pipeline.rollouts.label import LabelledRollout


class STaR(Algorithm):
    """See the module's docstring."""

    name = "star"
    likelihood = True

    def weights(self, rollouts: Sequence[LabelledRollout]) -> list[np.ndarray]:
        """See `Algorithm.weights`."""
        return [labelled.rollout.per_token(labelled.rollout.reward, labelled.rollout.reward) for labelled in rollouts]
