"""MRT-online: progress of each episode as that episode's credit, on policy.

    w_t = A + alpha * D_j / s                 for a sampled thinking token t of episode j
    w_t = A                                   for the tokens that stop the thought and give the answer
    A   = r - mean(r of the group)
    D_j = sum_{i >= j} gamma^(i-j) [ J(z_0:i) - J(z_0:i-1) ]          discounted progress from episode j on
    s   = root mean square of D over the episodes of the batch        (1 if normalize_progress is off)

After the v0.1 release of MRT (traces sampled on policy, forced terminations branched at each boundary, dense progress
per episode). The release does not document how progress is spread over tokens or normalised; the two lines for D and s
are our choice. Differs from GRPO by the second term only.

Why the bonus does not cancel: it differs between the episodes of one rollout and is not centred by the group, unlike a
bonus r - J(prefix) with one shared J, which a group mean removes.
expected_outcome (ours) replaces the reward by its expectation where the prover knows it, which takes the noise of the
answer's sampling out of the thought's credit and leaves its mean alone:

    A   = J(z_0:k) - mean(J(z_0:k) of the group)        for thought and stop; k is the last boundary
    w_t = r - J(z_0:k)                                  for the tokens of the answer

J is the expectation of r where the answer is sampled after the thought has ended. A trace that ends without answering,
or that stopped because of its answer (backtracking search), keeps r for all of its tokens.
What it depends on: A on every choice; the bonus on what is thought in an episode and, with gamma, before it. With
gamma = 0, s = 1 and episodes of fixed length its expected gradient is that of the progress term of the paper's
objective, sum_j E_{z_j} [ J(c_j, z_j) - J(c_j) ], with the prefixes c_j as they were sampled and held fixed. Where the
policy's own words open an episode, they are not credited for ending the one before.
Degenerate cases: alpha = 0 is GRPO exactly (expected_outcome off); constant J gives no bonus; gamma = 1 with
normalize_progress off gives each episode J(end) - J(before it).
"""

from collections.abc import Sequence

import numpy as np

from mrt_pipeline.algorithms.base import Algorithm, group_advantages
from mrt_pipeline.mrt.episodes import token_episodes
from mrt_pipeline.mrt.progress import discounted_progress
from mrt_pipeline.rollouts.label import LabelledRollout


class MRTOnline(Algorithm):
    """See the module's docstring; divide_by_std as in GRPO."""

    name = "mrt_online"
    needs_success = True

    def __init__(
        self,
        alpha: float,
        gamma: float,
        normalize_progress: bool = True,
        divide_by_std: bool = False,
        expected_outcome: bool = False,
    ):
        self.alpha, self.gamma = alpha, gamma
        self.normalize_progress, self.divide_by_std = normalize_progress, divide_by_std
        self.expected_outcome = expected_outcome

    def weights(self, rollouts: Sequence[LabelledRollout]) -> list[np.ndarray]:
        """See `Algorithm.weights`."""
        outcomes = [_expected_reward(labelled) for labelled in rollouts] if self.expected_outcome else None
        advantages = group_advantages(rollouts, self.divide_by_std, outcomes)
        credits = [discounted_progress(labelled.success, self.gamma) for labelled in rollouts]
        scale = 1.0
        if self.normalize_progress:
            pooled = np.concatenate(credits)
            scale = max(float(np.sqrt(np.mean(pooled**2))) if len(pooled) else 0.0, 1e-6)
        weights = [
            labelled.rollout.per_token(
                advantage + self.alpha / scale * credit[token_episodes(labelled.boundaries)], advantage
            )
            for labelled, advantage, credit in zip(rollouts, advantages, credits, strict=True)
        ]
        if outcomes is not None:
            for labelled, values, outcome in zip(rollouts, weights, outcomes, strict=True):
                if _answers_afterwards(labelled):
                    values[len(values) - len(labelled.rollout.answer) :] = labelled.rollout.reward - outcome
        return weights


def _expected_reward(labelled: LabelledRollout) -> float:
    return float(labelled.success[-1]) if _answers_afterwards(labelled) else labelled.rollout.reward


def _answers_afterwards(labelled: LabelledRollout) -> bool:
    rollout = labelled.rollout
    return rollout.stop_reason == "length" or (rollout.stop_reason == "stop" and rollout.stopped_at is None)
