import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from tabular import Tabular

from mrt_pipeline.algorithms.base import curves, ending_tokens
from mrt_pipeline.algorithms.grpo import GRPO
from mrt_pipeline.algorithms.least import Least
from mrt_pipeline.algorithms.mrt_online import MRTOnline
from mrt_pipeline.mrt.baselines import centred_least

successes = st.lists(st.floats(0, 1), min_size=1, max_size=5)
batches = st.lists(st.tuples(st.integers(0, 2), st.sampled_from([0.0, 1.0]), successes), min_size=1, max_size=8)


def bonuses(rollouts):
    """Before they are scaled."""
    return centred_least(*curves(rollouts)[1:], ending_tokens(rollouts))


def equal(left, right):
    return all(np.allclose(a, b, atol=1e-9) for a, b in zip(left, right, strict=True))


@given(batches, st.booleans())
def test_alpha_zero_is_outcome_credit(make_labelled, batch, expected):
    rollouts = [make_labelled(success, group=group, reward=reward) for group, reward, success in batch]
    found = Least(alpha=0.0, expected_outcome=expected).weights(rollouts)
    assert equal(found, MRTOnline(alpha=0.0, expected_outcome=expected).weights(rollouts))
    assert expected or equal(found, GRPO().weights(rollouts))


@given(batches.filter(lambda batch: len(batch) > 1), st.floats(0, 2))
def test_constant_success_gives_no_bonus_beside_siblings(make_labelled, batch, alpha):
    rollouts = [make_labelled([0.3] * len(success), group=0, reward=reward) for _, reward, success in batch]
    found = Least(alpha=alpha, expected_outcome=False).weights(rollouts)
    assert equal(found, GRPO().weights(rollouts))


def test_by_hand(make_labelled):
    """Found and lost is worth what is left at the end; found and kept is worth it all; ended, it is held."""
    rollouts = [make_labelled((0.0, 1.0, 0.25), group=0), make_labelled((0.0, 0.75, 1.0, 1.0), group=0)]
    lost, kept = bonuses(rollouts)
    assert np.allclose(lost, [0.25 - 0.75, 0.25 - 1.0, 0.25 - 1.0])
    assert np.allclose(kept, [0.75 - 0.25, 1.0 - 0.25, 1.0 - 0.25, 1.0 - 0.25])


@pytest.mark.parametrize("seed", range(5))
def test_the_expected_bonus_is_the_gradient_of_the_least_to_come(make_labelled, seed):
    """Every pair of traces of a random policy, J random after every token: groups of two, each the other's baseline."""
    policy, traces, j = Tabular.random(seed)

    def worth(trace, t):
        n = len(trace.thought)
        if t == len(trace.choices) - 1:
            return 0.0  # the answer
        return min(j[trace.thought[:end]] for end in range(min(t + 1, n), n + 1))

    total = policy.expected_over_pairs(traces, make_labelled, j, bonuses)
    assert np.allclose(total, 2 * policy.local_gradient(traces, worth), atol=1e-8)
