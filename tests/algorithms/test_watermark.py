import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from tabular import Tabular

from mrt_pipeline.algorithms.base import ending_tokens
from mrt_pipeline.algorithms.grpo import GRPO
from mrt_pipeline.algorithms.mrt_online import MRTOnline
from mrt_pipeline.algorithms.watermark import Watermark

curves = st.lists(st.floats(0, 1), min_size=1, max_size=5)
batches = st.lists(st.tuples(st.integers(0, 2), st.sampled_from([0.0, 1.0]), curves), min_size=1, max_size=8)


def labelled_batch(make_labelled, batch):
    return [make_labelled(success, group=group, reward=reward) for group, reward, success in batch]


def equal(left, right):
    return all(np.allclose(a, b, atol=1e-9) for a, b in zip(left, right, strict=True))


@given(batches, st.booleans())
def test_alpha_zero_is_outcome_credit(make_labelled, batch, expected):
    rollouts = labelled_batch(make_labelled, batch)
    found = Watermark(alpha=0.0, expected_outcome=expected).weights(rollouts)
    assert equal(found, MRTOnline(alpha=0.0, expected_outcome=expected).weights(rollouts))
    assert expected or equal(found, GRPO().weights(rollouts))


@given(batches, st.floats(0, 2))
def test_where_J_never_falls_it_is_mrt_online(make_labelled, batch, alpha):
    rollouts = labelled_batch(make_labelled, [(group, reward, sorted(s)) for group, reward, s in batch])
    assert equal(Watermark(alpha=alpha).weights(rollouts), MRTOnline(alpha=alpha).weights(rollouts))


def test_by_hand(make_labelled):
    """Found, lost, found again, and a little more: the second find earns nothing, the little more does."""
    rollouts = [make_labelled((0.0, 0.5, 0.25, 0.5, 0.75), reward=1.0, group=0), make_labelled((0.0,), group=1)]
    bonus = Watermark(expected_outcome=False).weights(rollouts)[0][:4]
    assert np.allclose(bonus, np.array([0.5, 0.0, 0.0, 0.25]) / np.sqrt((0.5**2 + 0.25**2) / 4))


def added(success, t):
    """What the episode between places t and t + 1 adds to the best J."""
    return max(0.0, success[t + 1] - max(success[: t + 1]))


@pytest.mark.parametrize("seed", range(5))
def test_the_expected_bonus_is_the_gradient_of_what_an_episode_adds_to_the_best(make_labelled, seed):
    """Every pair of traces of a random policy, J random after every token: an episode a token."""
    policy, traces, j = Tabular.random(seed)

    def worth(trace, t):
        success = policy.with_success(trace, make_labelled, j).success
        return added(success, t) if t < len(trace.thought) else 0.0

    def bonuses(pair):
        gains = [added(item.success, t) for item in pair for t in range(len(item.success) - 1)]
        scale = np.sqrt(np.mean(np.square(gains))) if gains else 1.0
        credited, outcome = (Watermark(alpha=alpha).weights(pair) for alpha in (scale, 0.0))
        ends = [len(item.rollout.thought) + n for item, n in zip(pair, ending_tokens(pair), strict=True)]
        return [(a - b)[:end] for a, b, end in zip(credited, outcome, ends, strict=True)]

    total = policy.expected_over_pairs(traces, make_labelled, j, bonuses)
    assert np.allclose(total, 2 * policy.local_gradient(traces, worth), atol=1e-7)
