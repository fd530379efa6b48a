"""Drawing a step's rollouts: whole traces, or branches from stale prefixes. And what a training begins with.

The first draw can be made before training starts, as the pipeline's rollout and progress stages do: the policy is still
the base, so that it is on-policy. It is the first step's rollouts (of STaR, the first iteration's), or, for an
algorithm that branches, the thoughts that the first stale prefixes are cut from.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import partial

import numpy as np

from mrt_pipeline.algorithms.base import Algorithm
from mrt_pipeline.rollouts.actor import Actor
from mrt_pipeline.rollouts.label import LabelledRollout, Prefix, label_rollouts
from mrt_pipeline.rollouts.prover import Prover, Query
from mrt_pipeline.rollouts.rollout import Rollout
from mrt_pipeline.tasks.base import Problem

SAMPLE, PROVE, UPDATE, VALIDATE, JUDGE, CUT, ANSWER, THINK, PREFIX, LOOK = 1, 2, 3, 4, 5, 7, 8, 9, 10, 11
"""Purposes of a step's seeds."""
_ORDER = 6
_EMPTY = np.empty(0)


@dataclass(frozen=True)
class DrawSize:
    """groups: problems of a step. group_size: rollouts of each. forced_fraction: share of the groups whose thoughts
    are forced on to the budget."""

    groups: int
    group_size: int
    forced_fraction: float

    @property
    def n_forced(self) -> int:
        """Groups that are forced on: the first ones of a step."""
        return round(self.forced_fraction * self.groups)


def step_seed(seed: int, step: int, purpose: int) -> int:
    """An independent seed for each purpose of each step."""
    return int(np.random.SeedSequence([seed, step, purpose]).generate_state(1, np.uint64)[0] >> np.uint64(2))


def choose_problems(problems: Sequence[Problem], start: int, n: int, seed: int) -> list[Problem]:
    """Problems `start` to `start + n` of shuffled passes over all of them, chosen by these numbers alone."""
    indices: list[int] = []
    while len(indices) < n:
        epoch, offset = divmod(start + len(indices), len(problems))
        permutation = np.random.default_rng([seed, _ORDER, epoch]).permutation(len(problems))
        indices += permutation[offset : offset + n - len(indices)].tolist()
    return [problems[i] for i in indices]


def draw_first(
    actor: Actor, algorithm: Algorithm, problems: Sequence[Problem], size: DrawSize, seed: int
) -> list[Rollout]:
    """What a training begins with; see the module's docstring. problems: the training problems."""
    chosen = choose_problems(problems, 0, size.groups * max(1, algorithm.prefixes_every), seed)
    if algorithm.prefixes_every:
        return actor.sample(chosen, 1, step_seed(seed, 0, THINK))
    return draw_groups(actor, chosen, size, step_seed(seed, 0, SAMPLE))


def label_first(
    actor: Actor, algorithm: Algorithm, prover: Prover, rollouts: Sequence[Rollout], seed: int
) -> list[LabelledRollout]:
    """Label what `draw_first` has drawn: as training needs it, and besides at every boundary, to be looked at.

    Tokens of the prover are those of what training needs; `as_needed` leaves out the rest.
    """
    if algorithm.prefixes_every:
        needed = prove_prefixes(actor, prover, rollouts, step_seed(seed, 0, PREFIX))
    else:
        drawn = [_unlabelled(rollout) for rollout in rollouts]
        at = partial(step_seed, seed, 0)
        needed = label_draw(actor, algorithm, prover, drawn, at, algorithm.needs_success)
        if algorithm.needs_success:
            return needed
    whole = label_rollouts(actor, prover, rollouts, step_seed(seed, 0, LOOK))
    return [
        replace(old, cuts=new.cuts, at_cuts=new.at_cuts, prover_tokens=new.prover_tokens)
        for old, new in zip(whole, needed, strict=True)
    ]


def draw_groups(actor: Actor, problems: Sequence[Problem], size: DrawSize, seed: int) -> list[Rollout]:
    """`size.group_size` rollouts of each problem; the first groups are forced to the budget."""
    return actor.sample(problems, size.group_size, seed, min_thinking=_forced(actor, len(problems), size))


def prove_prefixes(actor: Actor, prover: Prover, rollouts: Sequence[Rollout], seed: int) -> list[LabelledRollout]:
    """Thoughts with J after a random number of their episodes (`cuts`, `at_cuts`): what prefixes are cut from.

    The number is uniform from 0 to one less than the thought has, so that something is left to be thought. J there is
    that of being stopped, also where the policy closed its thought at once.
    """
    rng = np.random.default_rng(seed)
    cuts = [rollout.boundaries[rng.integers(max(1, len(rollout.boundaries) - 1))] for rollout in rollouts]
    queries = [
        Query(rollout.problem, rollout.prompt, rollout.thought[:cut], np.array([cut]))
        for rollout, cut in zip(rollouts, cuts, strict=True)
    ]
    return [
        replace(_unlabelled(rollout), cuts=query.cuts, at_cuts=success.mean, prover_tokens=success.n_tokens)
        for rollout, query, success in zip(rollouts, queries, prover.success(actor, queries, seed), strict=True)
    ]


def cut_prefixes(thoughts: Sequence[LabelledRollout]) -> tuple[list[Prefix], int, int]:
    """The prefixes of `prove_prefixes`, and the sampled and the prover's tokens that they have cost."""
    prefixes = [Prefix(item.rollout.thought[: item.cuts[0]], float(item.at_cuts[0])) for item in thoughts]
    sampled, proved = sum(item.rollout.n_sampled for item in thoughts), sum(item.prover_tokens for item in thoughts)
    return prefixes, sampled, proved


def draw_step(
    actor: Actor, problems: Sequence[Problem], prefixes: Sequence[Prefix], size: DrawSize, seed: int
) -> list[LabelledRollout]:
    """A step's rollouts, not labelled yet: of whole groups, or from a prefix of each problem if there are any.

    From a prefix the first half of a group thinks on, forced to the budget in the first groups, and the second half
    answers at once; `size.group_size` must be even then.
    """
    if not prefixes:
        return [_unlabelled(rollout) for rollout in draw_groups(actor, problems, size, seed)]
    half = size.group_size // 2
    twice = [(problem, prefix, direct) for problem, prefix in zip(problems, prefixes, strict=True) for direct in (0, 1)]
    rollouts = actor.sample(
        [problem for problem, _, _ in twice],
        half,
        seed,
        min_thinking=np.repeat(_forced(actor, len(problems), size), 2),
        prefixes=[prefix.thought for _, prefix, _ in twice],
        direct=[bool(direct) for _, _, direct in twice],
    )
    result = []
    for i, rollout in enumerate(rollouts):
        _, prefix, direct = twice[i // half]
        result.append(_unlabelled(replace(rollout, group=i // size.group_size), prefix, bool(direct)))
    return result


def label_draw(
    actor: Actor,
    algorithm: Algorithm,
    prover: Prover,
    drawn: Sequence[LabelledRollout],
    seed: Callable[[int], int],
    at_boundaries: bool,
) -> list[LabelledRollout]:
    """J at the boundaries, if wanted, and where the algorithm asks for it besides. seed: a seed for each purpose."""
    rng = np.random.default_rng(seed(CUT))
    cuts = [list(algorithm.cuts(item, rng)) for item in drawn]
    if not (at_boundaries or any(cuts)):
        return list(drawn)
    found = label_rollouts(actor, prover, [item.rollout for item in drawn], seed(PROVE), cuts, at_boundaries)
    return [replace(new, prefix=old.prefix, direct=old.direct) for new, old in zip(found, drawn, strict=True)]


def as_needed(algorithm: Algorithm, labelled: Sequence[LabelledRollout]) -> list[LabelledRollout]:
    """What an algorithm sees of rollouts that `label_first` has labelled: without J at boundaries, if it needs none."""
    if algorithm.needs_success:
        return list(labelled)
    return [replace(item, success=_EMPTY, success_sem=_EMPTY) for item in labelled]


def _unlabelled(rollout: Rollout, prefix: Prefix | None = None, direct: bool = False) -> LabelledRollout:
    return LabelledRollout(rollout, rollout.boundaries, _EMPTY, _EMPTY, prefix=prefix, direct=direct)


def _forced(actor: Actor, n_problems: int, size: DrawSize) -> np.ndarray:
    return np.where(np.arange(n_problems) < size.n_forced, actor.limits.thinking_budget, 0)
