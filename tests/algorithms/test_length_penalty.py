import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from mrt_pipeline.algorithms.grpo import GRPO
from mrt_pipeline.algorithms.length_penalty import LengthPenalty

batches = st.lists(st.tuples(st.integers(0, 2), st.sampled_from([0.0, 1.0]), st.integers(0, 9)), min_size=1, max_size=8)


def labelled_batch(make_labelled, batch):
    """Rollouts of (group, reward, thinking tokens)."""
    return [make_labelled((0.0,), boundaries=[length], group=group, reward=r) for group, r, length in batch]


def first_weights(rollouts, alpha):
    return [float(weights[0]) for weights in LengthPenalty(alpha=alpha).weights(rollouts)]


@given(batches)
def test_alpha_zero_is_grpo(make_labelled, batch):
    rollouts = labelled_batch(make_labelled, batch)
    for found, expected in zip(LengthPenalty(alpha=0.0).weights(rollouts), GRPO().weights(rollouts), strict=True):
        assert np.array_equal(found, expected)


def test_by_hand(make_labelled):
    # Right ones of 2 and 6 tokens: one deviation below and above the mean; the wrong one is not penalised.
    rollouts = labelled_batch(make_labelled, [(0, 1.0, 2), (0, 1.0, 6), (0, 0.0, 9), (1, 1.0, 5), (1, 0.0, 1)])
    short, long = (1 - 0.5 / (1 + np.exp(-z)) for z in (-1, 1))
    mean = (short + long) / 3
    expected = [short - mean, long - mean, -mean, 0.375, -0.375]  # alone, a right one loses alpha / 2
    assert first_weights(rollouts, 0.5) == pytest.approx(expected)


@given(batches, st.floats(0.01, 1))
def test_shorter_is_never_worse_among_right_rollouts_and_right_never_worse_than_wrong(make_labelled, batch, alpha):
    weights = first_weights(labelled_batch(make_labelled, batch), alpha)
    for (group, reward, length), weight in zip(batch, weights, strict=True):
        for (other_group, other_reward, other_length), other in zip(batch, weights, strict=True):
            if group == other_group and (reward > other_reward or (reward == other_reward and length <= other_length)):
                assert weight >= other - 1e-9


@given(batches, st.floats(0, 1))
def test_weights_of_a_group_sum_to_zero(make_labelled, batch, alpha):
    weights = first_weights(labelled_batch(make_labelled, batch), alpha)
    for group in {group for group, _, _ in batch}:
        assert abs(sum(w for w, (g, _, _) in zip(weights, batch, strict=True) if g == group)) < 1e-9


def test_every_token_of_a_rollout_has_the_same_weight(make_labelled):
    for weights in LengthPenalty(alpha=0.5).weights(labelled_batch(make_labelled, [(0, 1.0, 4), (0, 0.0, 3)])):
        assert len(set(weights.tolist())) == 1
