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

from collections.abc import Sequence

import numpy as np

from mrt_pipeline.algorithms.base import Algorithm, center_by_group
from mrt_pipeline.rollouts.label import LabelledRollout

BONUSES = ("next_episode", "continue", "all", "termination")


class MRT(Algorithm):
    """See the module's docstring for alpha and bonus. refresh_every: steps after which new prefixes are sampled."""

    name = "mrt"

    def __init__(self, alpha: float, bonus: str, refresh_every: int):
        if bonus not in BONUSES:
            raise ValueError(f"unknown bonus {bonus!r}; expected one of {', '.join(BONUSES)}")
        if refresh_every < 1:
            raise ValueError(f"refresh_every must be at least 1, got {refresh_every}")
        self.alpha, self.bonus, self.refresh_every = alpha, bonus, refresh_every

    def cuts(self, labelled: LabelledRollout, rng: np.random.Generator) -> list[int]:
        """The end of the next episode."""
        return [_next_end(labelled)] if self.bonus == "next_episode" and not labelled.direct else []

    def weights(self, rollouts: Sequence[LabelledRollout]) -> list[np.ndarray]:
        """See `Algorithm.weights`."""
        rewards = np.array([labelled.rollout.reward for labelled in rollouts])
        direct = np.array([labelled.direct for labelled in rollouts])
        if self.bonus == "termination":
            advantages = rewards - np.array([labelled.prefix.success for labelled in rollouts])
        else:
            groups = np.array([labelled.rollout.group for labelled in rollouts])
            advantages = center_by_group(rewards, 2 * groups + direct)
        scaled = {"all": True, "termination": True, "continue": ~direct, "next_episode": False}[self.bonus]
        advantages = np.where(scaled, 1 + self.alpha, 1.0) * advantages
        weights = [labelled.rollout.per_token(a, a) for labelled, a in zip(rollouts, advantages, strict=True)]
        if self.bonus == "next_episode":
            for labelled, values in zip(rollouts, weights, strict=True):
                if not labelled.direct:
                    episode, success = _next_episode(labelled)
                    values[episode] += self.alpha * (success - labelled.prefix.success)
        return weights


def _next_end(labelled: LabelledRollout) -> int:
    """Thinking tokens at the end of the first episode after the prefix."""
    later = labelled.boundaries[labelled.boundaries > len(labelled.prefix.thought)]
    return int(later[0]) if len(later) else len(labelled.rollout.thought)


def _next_episode(labelled: LabelledRollout) -> tuple[slice, float]:
    """The tokens that make that episode, with the one that ends it, and J after it.

    In backtracking search an episode's own last token ends it; the one after it is credited in vain, which is no bias.
    """
    rollout, start, end = labelled.rollout, len(labelled.prefix.thought), _next_end(labelled)
    at_end, in_stream = end == len(rollout.thought), not len(rollout.close)
    if at_end and in_stream and (rollout.stop_reason == "eos" or (rollout.stop_reason == "stop" and end == start)):
        return slice(start, None), rollout.reward  # it ended the whole trace
    cut = at_end and rollout.stop_reason == "length"
    return slice(start, end if cut else end + 1), float(labelled.at_cuts[0])
