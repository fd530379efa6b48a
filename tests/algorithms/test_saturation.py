import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from tabular import Tabular

from mrt_pipeline.algorithms.base import ending_tokens
from mrt_pipeline.algorithms.grpo import GRPO
from mrt_pipeline.algorithms.saturation import Saturation

ends = st.lists(st.tuples(st.integers(0, 2), st.sampled_from([0.0, 1.0]), st.integers(0, 4)), min_size=1, max_size=8)


@given(ends)
def test_without_any_success_it_is_grpo(make_labelled, batch):
    rollouts = [make_labelled([0.0] * (n + 1), group=group, reward=reward) for group, reward, n in batch]
    for found, expected in zip(
        Saturation(expected_outcome=False).weights(rollouts), GRPO().weights(rollouts), strict=True
    ):
        assert np.allclose(found, expected)


def test_by_hand(make_labelled):
    """J is 0, .8 and 1 before the choices of one trace, and 0 all along the other."""
    found, lost = Saturation().weights(
        [make_labelled((0.0, 0.8, 1.0), group=0, reward=1.0), make_labelled((0.0, 0.0), group=0, reward=1.0)]
    )
    assert np.allclose(found[:3], [0.5, 0.5 * 0.2, 0.0]) and np.allclose(found[3:], 0.0)
    assert np.allclose(lost[:2], -0.5) and np.allclose(lost[2:], 1.0)


@pytest.mark.parametrize("seed", range(5))
def test_the_expected_gradient_at_each_place_is_that_of_the_outcome_times_what_is_left_to_gain(make_labelled, seed):
    """Every pair of traces of a random policy, J random after every token; the outcome is J at the end."""
    policy, traces, j = Tabular.random(seed)

    def worth(trace, t):
        return (1 - j[trace.thought[:t]]) * j[trace.thought] if t < len(trace.choices) - 1 else 0.0

    def weights(pair):
        places = [len(item.rollout.thought) + n for item, n in zip(pair, ending_tokens(pair), strict=True)]
        return [own[:n] for own, n in zip(Saturation().weights(pair), places, strict=True)]

    total = policy.expected_over_pairs(traces, make_labelled, j, weights)
    assert np.allclose(total, policy.local_gradient(traces, worth), atol=1e-8)  # (m - 1) times, as GRPO's
