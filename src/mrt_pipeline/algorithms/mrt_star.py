"""MRT-STaR: likelihood on the cuts of traces that make the most progress and are followed by a right answer; iterated.

The paper keeps traces "that maximize progress and are also followed by correct solutions once thinking terminates"
(arXiv 2503.07572, figure 6); its exact rule is not in what could be read of it. The rule here:

    j*(z)  = argmax_j J(z_0:j) over the episode boundaries of a trace, the earliest if there are several: the prefix
             that has made the most progress, since progress from the start telescopes to J(z_0:j) - J(empty)
    P(z)   = J(z_0:j*) - J(empty)
    a cut  = z_0:j*, the end of the thought as the policy itself ends it, and an answer sampled after that
    kept   = of each problem's cuts with P > 0 and a right answer, the `keep` with the largest P; ties go to the
             shorter one
    w_t    = 1 on the thinking tokens that were sampled, the end of the thought and the answer of kept cuts

So stopping is imitated as the policy does it by itself, never a stop phrase that is put in; and where a thought was
forced on, neither the stop that it wanted nor what was put in its place. Iterations start from the base policy, or go
on from the current one (`start_from`), as in STaR.
What it depends on: the thought up to j*, stopping there, and the answer.
Differs from STaR in what is imitated: not the whole right trace, but its thought up to where it was best, and stopping
there; and a trace that was right at some point but answered wrongly at its end counts as well.
Degenerate cases: constant J keeps nothing, as no cut makes progress; an iteration that keeps nothing leaves the base,
or with `current` changes nothing.
"""

from collections.abc import Sequence
from typing import ClassVar, Literal

from pydantic import Field

from mrt_pipeline.algorithms.base import IteratedAlgorithm, Rollouts, Weights, place
from mrt_pipeline.mrt import credit
from mrt_pipeline.registry import PositiveInt
from mrt_pipeline.rollouts.label import ForcedAnswer, LabelledRollout


class MRTStar(IteratedAlgorithm):
    """See the module's docstring."""

    name: Literal["mrt_star"] = "mrt_star"
    keep: PositiveInt = Field(default=2, description="cuts kept of each problem")
    needs_success: ClassVar[bool] = True

    def weights(self, rollouts: Rollouts) -> Weights:
        """Whole traces are not trained: weight 0 everywhere."""
        return [labelled.rollout.per_token(0.0, 0.0) for labelled in rollouts]

    def answers(self, labelled: LabelledRollout) -> list[int]:
        """One, at j*."""
        return [credit.best_cut(labelled.boundaries, labelled.success)]

    def answer_weights(self, rollouts: Rollouts, answers: Sequence[ForcedAnswer]) -> Weights:
        """1 on kept cuts, 0 on others."""
        found = credit.mrt_star(
            rewards=[answer.rollout.reward for answer in answers],
            groups=[rollouts[answer.source].rollout.group for answer in answers],
            lengths=[answer.cut for answer in answers],
            success=[answer.success for answer in answers],
            start_success=[rollouts[answer.source].success[0] for answer in answers],
            keep=self.keep,
        )
        return place(found, answers)
