import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from tabular import Tabular

from mrt_pipeline.algorithms.grpo import GRPO
from mrt_pipeline.mrt.baselines import center_by_group

batches = st.lists(st.tuples(st.integers(0, 3), st.sampled_from([0.0, 1.0])), min_size=1, max_size=12)


@given(batches)
def test_weights_are_rewards_minus_the_mean_of_their_group(make_labelled, batch):
    rollouts = [make_labelled(group=group, reward=reward) for group, reward in batch]
    for (group, reward), weights in zip(batch, GRPO().weights(rollouts), strict=True):
        expected = reward - np.mean([r for g, r in batch if g == group])
        assert weights.shape == (3 + 1 + 2,)
        assert np.allclose(weights, expected)


@given(batches)
def test_advantages_of_a_group_sum_to_zero(batch):
    advantages = center_by_group([reward for _, reward in batch], [group for group, _ in batch])
    for group in {group for group, _ in batch}:
        assert abs(sum(a for a, (g, _) in zip(advantages, batch, strict=True) if g == group)) < 1e-9


@pytest.mark.parametrize("divide_by_std", [False, True])
@pytest.mark.parametrize("reward", [0.0, 1.0])
def test_equal_rewards_give_zero_weights(make_labelled, divide_by_std, reward):
    rollouts = [make_labelled(group=0, reward=reward) for _ in range(3)]
    assert not np.concatenate(GRPO(divide_by_std=divide_by_std).weights(rollouts)).any()


def test_division_by_the_standard_deviation(make_labelled):
    rollouts = [make_labelled(group=0, reward=reward) for reward in (1.0, 0.0, 0.0, 0.0)]
    rollouts += [make_labelled(group=1, reward=reward) for reward in (1.0, 0.0)]
    weights = [w[0] for w in GRPO(divide_by_std=True).weights(rollouts)]
    assert np.allclose(weights, [0.75 / np.sqrt(3 / 16), *[-0.25 / np.sqrt(3 / 16)] * 3, 1, -1])


@given(batches, st.randoms())
def test_order_does_not_matter(make_labelled, batch, random):
    rollouts = [make_labelled(group=group, reward=reward) for group, reward in batch]
    order = random.sample(range(len(batch)), len(batch))
    weights = GRPO().weights(rollouts)
    permuted = GRPO().weights([rollouts[i] for i in order])
    assert all(np.allclose(permuted[k], weights[i]) for k, i in enumerate(order))


def test_success_is_not_needed(make_labelled):
    assert GRPO.needs_success is False
    rollouts = [make_labelled(reward=1.0, group=0), make_labelled(reward=0.0, group=0)]
    empty = np.empty(0)
    bare = [type(r)(r.rollout, r.boundaries, empty, empty) for r in rollouts]
    assert all(np.array_equal(a, b) for a, b in zip(GRPO().weights(rollouts), GRPO().weights(bare), strict=True))


@pytest.mark.parametrize("seed", range(3))
def test_the_expected_update_is_the_gradient_of_the_reward(make_labelled, seed):
    policy = Tabular(longest=2, rng=np.random.default_rng(seed))
    expected = policy.gradient(policy.traces(), lambda trace: trace.right)
    assert np.allclose(policy.expected_update(GRPO(), make_labelled), expected, atol=1e-8)  # m - 1 = 1
