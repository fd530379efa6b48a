"""Progress labelling: J at every episode boundary of a rollout."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from mrt_pipeline.engines.base import Engine
from mrt_pipeline.policy.template import ThinkTemplate
from mrt_pipeline.rollouts.prover import Prover, Query
from mrt_pipeline.rollouts.rollout import Rollout


@dataclass(frozen=True)
class LabelledRollout:
    """A rollout with J of the meta-prover at its episode boundaries.

    rollout: the trace.
    boundaries: (k + 1,) thinking tokens at the boundaries of its k episodes, the empty prefix (0) first.
    success: (k + 1,) J there. success_sem: (k + 1,) its standard error, 0 for the exact prover.
    """

    rollout: Rollout
    boundaries: np.ndarray
    success: np.ndarray
    success_sem: np.ndarray


def label_rollouts(
    engine: Engine,
    prover: Prover,
    template: ThinkTemplate,
    rollouts: Sequence[Rollout],
    seed: int,
    extra_cuts: Sequence[Sequence[int]] | None = None,
) -> tuple[list[LabelledRollout], list[np.ndarray], int]:
    """Label rollouts, and ask for J at further cuts of each rollout's thought in the same pass.

    extra_cuts: for each rollout, numbers of thinking tokens within its thought.
    Returns the labelled rollouts, J at the extra cuts of each, and the number of tokens the prover spent.
    """
    boundaries = [rollout.boundaries(template) for rollout in rollouts]
    extra = [np.asarray(cuts, dtype=np.int64) for cuts in extra_cuts or [()] * len(rollouts)]
    cuts = [np.union1d(b, e) for b, e in zip(boundaries, extra, strict=True)]
    queries = [
        Query(rollout.problem, rollout.prompt, rollout.thought, cut)
        for rollout, cut in zip(rollouts, cuts, strict=True)
    ]
    found = prover.success(engine, queries, seed)
    labelled, at_extra = [], []
    for rollout, b, e, cut, success in zip(rollouts, boundaries, extra, cuts, found, strict=True):
        at_boundary = np.searchsorted(cut, b)
        labelled.append(LabelledRollout(rollout, b, success.mean[at_boundary], success.sem[at_boundary]))
        at_extra.append(success.mean[np.searchsorted(cut, e)])
    return labelled, at_extra, sum(success.n_tokens for success in found)
