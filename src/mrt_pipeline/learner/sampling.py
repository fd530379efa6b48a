"""Drawing a step's rollouts: whole traces, or branches from stale prefixes."""

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np

from mrt_pipeline.engines.base import Engine
from mrt_pipeline.policy.policy import Policy
from mrt_pipeline.rollouts.label import LabelledRollout, Prefix
from mrt_pipeline.rollouts.prover import Prover, Query
from mrt_pipeline.rollouts.rollout import Rollout, RolloutSettings, sample_rollouts
from mrt_pipeline.tasks.base import Problem, Task

_EMPTY = np.empty(0)


@dataclass(frozen=True)
class Setup:
    """What samples and judges in the loop: all of it fixed during training, but for the policy's weights."""

    policy: Policy
    engine: Engine
    task: Task
    prover: Prover
    rollout: RolloutSettings

    def sample(self, problems: Sequence[Problem], n: int, seed: int, **how) -> list[Rollout]:
        """Rollouts of the policy as it is now; see `sample_rollouts`."""
        policy = self.policy
        return sample_rollouts(
            self.engine, self.task, policy.tokenizer, policy.template, problems, self.rollout, n, seed, **how
        )

    def answer(
        self, rollouts: Sequence[Rollout], cuts: Sequence[int], seed: int, closed: bool = False
    ) -> list[Rollout]:
        """Cut each rollout's thought after so many tokens, where an answer is possible, and have it answered there.

        closed: after its own `close`, instead of the stop phrase.
        """
        return self.sample(
            [rollout.problem for rollout in rollouts],
            1,
            seed,
            prefixes=[rollout.thought[:cut] for rollout, cut in zip(rollouts, cuts, strict=True)],
            direct=[True] * len(rollouts),
            closed=closed,
        )


def sample_groups(
    setup: Setup, problems: Sequence[Problem], group_size: int, n_forced: int, seed: int
) -> list[LabelledRollout]:
    """`group_size` rollouts of each problem, not labelled yet; the first `n_forced` groups are forced to the budget."""
    rollouts = setup.sample(problems, group_size, seed, min_thinking=_forced(setup, len(problems), n_forced))
    return [LabelledRollout(rollout, rollout.boundaries(setup.policy.template), _EMPTY, _EMPTY) for rollout in rollouts]


def sample_prefixes(setup: Setup, problems: Sequence[Problem], seed: tuple[int, int]) -> tuple[list[Prefix], int, int]:
    """A prefix of each problem: a thought of the policy as it is now, cut after a random number of its episodes.

    The number is uniform from 0 to one less than the thought has, so that something is left to be thought.
    seed: of sampling, and of cutting and proving. Returns the prefixes, and the sampled and the prover's tokens.
    """
    rollouts = setup.sample(problems, 1, seed[0])
    rng = np.random.default_rng(seed[1])
    cuts = []
    for rollout in rollouts:
        boundaries = rollout.boundaries(setup.policy.template)
        cuts.append(int(boundaries[rng.integers(max(1, len(boundaries) - 1))]))
    queries = [
        Query(rollout.problem, rollout.prompt, rollout.thought[:cut], np.array([cut]))
        for rollout, cut in zip(rollouts, cuts, strict=True)
    ]
    found = setup.prover.success(setup.engine, queries, seed[1])
    prefixes = [Prefix(query.thought, float(success.mean[0])) for query, success in zip(queries, found, strict=True)]
    sampled = sum(rollout.n_sampled for rollout in rollouts)
    return prefixes, sampled, sum(success.n_tokens for success in found)


def sample_branches(
    setup: Setup, problems: Sequence[Problem], prefixes: Sequence[Prefix], group_size: int, n_forced: int, seed: int
) -> list[LabelledRollout]:
    """`group_size` rollouts from each problem's prefix: the first half thinks on, the second half answers at once.

    Not labelled yet. Thinking on in the first `n_forced` groups is forced to the budget. group_size must be even.
    """
    half = group_size // 2
    twice = [(problem, prefix, direct) for problem, prefix in zip(problems, prefixes, strict=True) for direct in (0, 1)]
    rollouts = setup.sample(
        [problem for problem, _, _ in twice],
        half,
        seed,
        min_thinking=np.repeat(_forced(setup, len(problems), n_forced), 2),
        prefixes=[prefix.thought for _, prefix, _ in twice],
        direct=[bool(direct) for _, _, direct in twice],
    )
    result = []
    for i, rollout in enumerate(rollouts):
        _, prefix, direct = twice[i // half]
        rollout = replace(rollout, group=i // group_size)
        boundaries = rollout.boundaries(setup.policy.template)
        result.append(LabelledRollout(rollout, boundaries, _EMPTY, _EMPTY, prefix=prefix, direct=bool(direct)))
    return result


def _forced(setup: Setup, n_problems: int, n_forced: int) -> np.ndarray:
    return np.where(np.arange(n_problems) < n_forced, setup.rollout.thinking_budget, 0)
