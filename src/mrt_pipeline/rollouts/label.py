"""Progress labelling: J at every episode boundary of a rollout."""

import math
from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np

from mrt_pipeline.rollouts.actor import Actor
from mrt_pipeline.rollouts.prover import Prover, Query, Success
from mrt_pipeline.rollouts.rollout import Rollout


@dataclass(frozen=True)
class Prefix:
    """The beginning of a thought that rollouts start from. It was sampled earlier, so it is never trained.

    thought: (n,) thinking tokens. success: J of the meta-prover after them, when they were sampled.
    """

    thought: np.ndarray
    success: float


@dataclass(frozen=True)
class LabelledRollout:
    """A rollout with J of the meta-prover at its episode boundaries.

    rollout: the trace.
    boundaries: (k + 1,) thinking tokens at the boundaries of its k episodes, the empty prefix (0) first.
    success: (k + 1,) J there. success_sem: (k + 1,) its standard error, 0 for the exact prover.
    cuts: (c,) further thinking-token counts at which J was asked for, snapped. at_cuts: (c,) J there.
    prover_tokens: tokens that the prover spent on it.
    prefix: what the rollout started from, if anything. direct: it answered right there instead of thinking on.
    """

    rollout: Rollout
    boundaries: np.ndarray
    success: np.ndarray
    success_sem: np.ndarray
    cuts: np.ndarray = field(default_factory=lambda: np.empty(0, dtype=np.int64))
    at_cuts: np.ndarray = field(default_factory=lambda: np.empty(0))
    prover_tokens: int = 0
    prefix: Prefix | None = None
    direct: bool = False

    def success_at(self, cut: int) -> float:
        """J after `cut` thinking tokens, a boundary or one of the cuts; NaN if it was not asked for there."""
        known = dict(zip(self.boundaries.tolist(), self.success.tolist(), strict=False))  # success may be empty
        return (known | dict(zip(self.cuts.tolist(), self.at_cuts.tolist(), strict=True))).get(int(cut), math.nan)

    def curve(self) -> tuple[np.ndarray, np.ndarray]:
        """Thinking tokens and success along the trace: J at the boundaries, then the reward where it stopped.

        The latter where no answer is to follow (`Rollout.stopped_at`): what it stopped with is no longer a matter of J.
        """
        end, reward = self.rollout.stopped_at, self.rollout.stopped_reward
        if end is None or reward is None:
            return self.boundaries, self.success
        return np.append(self.boundaries, end), np.append(self.success, reward)


@dataclass(frozen=True)
class ForcedAnswer:
    """An answer forced inside a rollout's thought, to be trained.

    source: index of that rollout in its batch. cut: thinking tokens before the answer. success: J there, NaN if it was
    not asked for. rollout: the prefix and the answer.
    """

    source: int
    cut: int
    success: float
    rollout: Rollout


def label_rollouts(
    actor: Actor,
    prover: Prover,
    rollouts: Sequence[Rollout],
    seed: int,
    extra_cuts: Sequence[Sequence[int]] | None = None,
    at_boundaries: bool = True,
    at_natural_end: bool = False,
) -> list[LabelledRollout]:
    """Label rollouts, and ask for J at further cuts of each rollout's thought in the same pass.

    extra_cuts: for each rollout, numbers of thinking tokens within its thought, in any order. They are moved back to
        where an answer can be forced (`Template.snap`), and J is held from there.
    at_boundaries: whether J is wanted at the boundaries; without it `success` is empty.
    at_natural_end: for measuring: where the policy first tried to stop is a boundary, too, whatever was put in its
        place, and J there is that of the answer it would have given (`Query.about`).
    """
    queries, wanted = [], []
    for rollout, cuts in zip(rollouts, extra_cuts or [()] * len(rollouts), strict=True):
        boundaries = rollout.measured_boundaries if at_natural_end else rollout.boundaries
        asked = boundaries if at_boundaries else boundaries[:0]
        extra = np.array([actor.template.snap(rollout.thought, cut, rollout.finished) for cut in cuts], dtype=np.int64)
        queries.append(Query.about(rollout, np.union1d(asked, extra), at_natural_end))
        wanted.append((boundaries, asked, extra))
    found = iter(prover.success(actor, [query for query in queries if len(query.cuts)], seed))
    labelled = []
    for rollout, query, (boundaries, asked, extra) in zip(rollouts, queries, wanted, strict=True):
        j = next(found) if len(query.cuts) else Success(np.empty(0), np.empty(0), 0)
        at, at_extra = np.searchsorted(query.cuts, asked), np.searchsorted(query.cuts, extra)
        labelled.append(
            LabelledRollout(rollout, boundaries, j.mean[at], j.sem[at], extra, j.mean[at_extra], j.n_tokens)
        )
    return labelled
