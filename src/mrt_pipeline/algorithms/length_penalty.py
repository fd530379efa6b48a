"""GRPO with a length penalty: correct and short beats correct and long.

    r' = r (1 - alpha * sigmoid((L - mean L) / std L))        L = thinking tokens; mean and std over the right rollouts
    w_t = r' - mean(r' of the group)                          of the group

The penalty of Arora & Zanette (arXiv 2502.04463). The MRT paper has a length penalty as an ablation without giving its
form in what could be read of it, so this is one such baseline, not a reproduction of that row.
What it depends on: every choice of the trace, by its reward and its length.
Degenerate cases: alpha = 0 is GRPO exactly; wrong rollouts are not penalised; a group whose right rollouts have equal
length is only rescaled.
"""

from typing import Literal

from pydantic import Field

from mrt_pipeline.algorithms.base import Algorithm, Rollouts, Weights, columns, place
from mrt_pipeline.mrt import credit
from mrt_pipeline.registry import Fraction


class LengthPenalty(Algorithm):
    """See the module's docstring."""

    name: Literal["length_penalty"] = "length_penalty"
    alpha: Fraction = Field(default=0.4, description="largest share of the reward that length can cost; 0 is GRPO")

    def weights(self, rollouts: Rollouts) -> Weights:
        """See `Algorithm.weights`."""
        return place(credit.length_penalty(*columns(rollouts), self.alpha), rollouts)
