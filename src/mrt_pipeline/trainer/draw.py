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

SAMPLE, PROVE, UPDATE, VALIDATE, JUDGE, _ORDER, CUT, ANSWER, THINK, PREFIX, LOOK = range(1, 12)
"""Purposes of a step's seeds."""


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
    epochs, first = range(start // len(problems), -(-(start + n) // len(problems))), start % len(problems)
    orders = [np.random.default_rng([seed, _ORDER, epoch]).permutation(len(problems)) for epoch in epochs]
    return [problems[i] for i in np.concatenate(orders)[first : first + n]]


def draw_first(
    actor: Actor, algorithm: Algorithm, problems: Sequence[Problem], size: DrawSize, seed: int
) -> list[Rollout]:
    """What a training on these problems begins with; see the module's docstring."""
    chosen = choose_problems(problems, 0, size.groups * max(1, algorithm.prefixes_every), seed)
    if algorithm.prefixes_every:
        return actor.sample(chosen, 1, step_seed(seed, 0, THINK))
    return [item.rollout for item in draw_step(actor, chosen, (), size, step_seed(seed, 0, SAMPLE))]


def label_first(
    actor: Actor, algorithm: Algorithm, prover: Prover, rollouts: Sequence[Rollout], seed: int
) -> list[LabelledRollout]:
    """Label what `draw_first` has drawn: as training needs it, and besides at every boundary, to be looked at.

    Tokens of the prover are those of what training needs.
    """
    if algorithm.prefixes_every:
        needed = prove_prefixes(actor, prover, rollouts, step_seed(seed, 0, PREFIX))
    else:
        unlabelled = [_unlabelled(rollout) for rollout in rollouts]
        needed = label_draw(actor, algorithm, prover, unlabelled, partial(step_seed, seed, 0))
        if algorithm.needs_success:
            return needed
    whole = label_rollouts(actor, prover, rollouts, step_seed(seed, 0, LOOK))
    return [
        replace(item, success=looked_at.success, success_sem=looked_at.success_sem)
        for item, looked_at in zip(needed, whole, strict=True)
    ]


def prove_prefixes(actor: Actor, prover: Prover, rollouts: Sequence[Rollout], seed: int) -> list[LabelledRollout]:
    """Thoughts with J after a random number of their episodes (`cuts`, `at_cuts`): what prefixes are cut from.

    The number is uniform from 0 to one less than the thought has, so that something is left to be thought. J there is
    that of being stopped, also where the policy closed its thought at once.
    """
    rng, queries = np.random.default_rng(seed), []
    for rollout in rollouts:
        cut = rollout.boundaries[rng.integers(max(1, len(rollout.boundaries) - 1))]
        queries.append(Query(rollout.problem, rollout.prompt, rollout.thought[:cut], np.array([cut])))
    return [
        replace(_unlabelled(rollout), cuts=query.cuts, at_cuts=success.mean, prover_tokens=success.n_tokens)
        for rollout, query, success in zip(rollouts, queries, prover.success(actor, queries, seed), strict=True)
    ]


def prefix_of(item: LabelledRollout) -> Prefix:
    """The prefix that `prove_prefixes` has found in a thought."""
    return Prefix(item.rollout.thought[: item.cuts[0]], float(item.at_cuts[0]))


def draw_step(
    actor: Actor, problems: Sequence[Problem], prefixes: Sequence[Prefix], size: DrawSize, seed: int
) -> list[LabelledRollout]:
    """A step's rollouts, not labelled yet; the thoughts of the first groups are forced to the budget.

    With a prefix of each problem, the first half of a group thinks on from there, and the second half answers at once.
    """
    forced = [actor.limits.thinking_budget if i < size.n_forced else 0 for i in range(len(problems))]
    ways = 2 if prefixes else 1
    rollouts = actor.sample(
        [problem for problem in problems for _ in range(ways)],
        size.group_size // ways,
        seed,
        min_thinking=np.repeat(forced, ways).tolist(),
        prefixes=[prefix.thought for prefix in prefixes for _ in range(ways)] or None,
        direct=[way == 1 for _ in problems for way in range(ways)],
    )
    groups = [rollout.group // ways for rollout in rollouts]
    return [
        _unlabelled(replace(rollout, group=group), prefixes[group] if prefixes else None, rollout.group % ways == 1)
        for rollout, group in zip(rollouts, groups, strict=True)
    ]


def label_draw(
    actor: Actor, algorithm: Algorithm, prover: Prover, drawn: Sequence[LabelledRollout], seed: Callable[[int], int]
) -> list[LabelledRollout]:
    """J where the algorithm needs it: at the boundaries, and where it asks for it. seed: a seed for each purpose."""
    rng = np.random.default_rng(seed(CUT))
    cuts = [list(algorithm.cuts(item, rng)) for item in drawn]
    if not (algorithm.needs_success or any(cuts)):
        return list(drawn)
    rollouts = [item.rollout for item in drawn]
    found = label_rollouts(actor, prover, rollouts, seed(PROVE), cuts, at_boundaries=algorithm.needs_success)
    return [replace(new, prefix=old.prefix, direct=old.direct) for new, old in zip(found, drawn, strict=True)]


def _unlabelled(rollout: Rollout, prefix: Prefix | None = None, direct: bool = False) -> LabelledRollout:
    return LabelledRollout(rollout, rollout.boundaries, np.empty(0), np.empty(0), prefix=prefix, direct=direct)
