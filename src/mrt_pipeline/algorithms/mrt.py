"""MRT, the paper's RL form: thinking on from a stale prefix against answering at once (arXiv 2503.07572, section 6).

A prefix c of each problem was sampled by an earlier policy and cut after a random number of episodes; J(c) was measured
then. Half of the group thinks on from c and then answers, the other half answers at once. The prefix is never trained.

    A_i = r_i - mean(r of its half of the group)

Each half is centred by itself: thinking on or answering is not chosen by the policy, so the mean of the other half
would be noise. `bonus` says what thinking on earns besides. The paper's text, its figure and its early release describe
it in ways that are not equivalent:

    next_episode   w_t = A + alpha (J(c, z) - J(c))     for the tokens of the next episode z and the one that ends it,
                                                        by closing the thought or by opening another episode; J(c, z)
                                                        is r where z ends the trace as a whole
                   w_t = A                              for all others: later episodes, the answer, answering at once
    continue       w   = (1 + alpha) (r - mean of its half) if the rollout thinks on, else A
    all            w   = (1 + alpha) (r - mean of its half)
    termination    w   = (1 + alpha) (r - J(c))         for both halves

What each can change: J(c) is given with the prefix, whatever is chosen after it. As part of a bonus on the whole
rollout it is a baseline and no reward, so in the last three alpha only scales the update: with halves of m, `continue`
has (1 + alpha) (m - 1) times the gradient of the expected reward on what thinks on and (m - 1) times on what answers at
once, `all` has (1 + alpha) (m - 1) times on both, `termination` (1 + alpha) m times. `next_episode` is the default and
the objective in its own words (Definition 6.1): J after the next episode depends on what was thought in it, so alpha
adds m times the gradient of E[J(c, z)], which is another direction than that of the outcome.
The group's standard deviation is never divided by; it would remove alpha from `all`.
Differs from GRPO by the prefixes, by the two halves, and by the bonus.
Degenerate cases: alpha = 0 is GRPO within each half (but for `termination`); J that an episode does not change gives no
bonus in `next_episode`; equal rewards within a half give that half no outcome.
"""

from dataclasses import replace
from typing import Any, Literal

import numpy as np
from pydantic import Field

from mrt_pipeline.algorithms.base import Algorithm, Rollouts, Weights, columns, place
from mrt_pipeline.mrt import credit
from mrt_pipeline.registry import NonNegative, PositiveInt
from mrt_pipeline.rollouts.label import LabelledRollout, Prefix


class MRT(Algorithm):
    """See the module's docstring."""

    name: Literal["mrt"] = "mrt"
    alpha: NonNegative = Field(default=1.0, description="weight of the progress bonus")
    bonus: credit.Bonus = Field(
        default="next_episode",
        description="what thinking on earns besides the outcome; only the first one is more than a scale",
    )
    refresh_every: PositiveInt = Field(default=5, description="steps after which new prefixes are sampled")

    @property
    def prefixes_every(self) -> int:
        """See `Algorithm.prefixes_every`."""
        return self.refresh_every

    def check(self, tree: Any) -> None:
        """See `Registered.check`."""
        super().check(tree)
        if tree.training.group_size % 2:
            raise ValueError(
                f"training.group_size {tree.training.group_size} must be even for algorithm=mrt: half of a group "
                "thinks on, half answers at once"
            )

    def cuts(self, labelled: LabelledRollout, rng: np.random.Generator) -> list[int]:
        """The end of the next episode."""
        return [_next_end(labelled)] if self.bonus == "next_episode" and not labelled.direct else []

    def weights(self, rollouts: Rollouts) -> Weights:
        """See `Algorithm.weights`."""
        found = credit.mrt(
            *columns(rollouts),
            direct=[labelled.direct for labelled in rollouts],
            prefix_lengths=[len(_prefix(labelled).thought) for labelled in rollouts],
            prefix_success=[_prefix(labelled).success for labelled in rollouts],
            next_ends=[_next_end(labelled) for labelled in rollouts],
            next_success=[labelled.at_cuts[0] if len(labelled.at_cuts) else np.nan for labelled in rollouts],
            cut=[labelled.rollout.stop_reason == "length" for labelled in rollouts],
            ends_trace=[_ends_trace(labelled) for labelled in rollouts],
            alpha=self.alpha,
            bonus=self.bonus,
        )
        # In backtracking search an episode's own last token ends it. Where thinking ends after it, the first token of
        # the attempt is credited in vain, which is no bias: so the stop is one token after the thought, in any format.
        return place(replace(found, stop=np.reshape(found.stop, (-1, 1))), rollouts)


def _prefix(labelled: LabelledRollout) -> Prefix:
    assert labelled.prefix is not None  # `prefixes_every` is positive
    return labelled.prefix


def _next_end(labelled: LabelledRollout) -> int:
    """Thinking tokens at the end of the first episode after the prefix."""
    later = labelled.boundaries[labelled.boundaries > len(_prefix(labelled).thought)]
    return int(later[0]) if len(later) else len(labelled.rollout.thought)


def _ends_trace(labelled: LabelledRollout) -> bool:
    """Whether that episode ends the whole trace, without an answer or with an attempt that is one."""
    rollout, end = labelled.rollout, _next_end(labelled)
    if end < len(rollout.thought) or len(rollout.close):
        return False
    return rollout.stop_reason == "eos" or (rollout.stop_reason == "stop" and end == len(_prefix(labelled).thought))
