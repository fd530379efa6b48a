from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from mrt_pipeline.algorithms.base import center_by_group
from mrt_pipeline.algorithms.grpo import GRPO
from mrt_pipeline.algorithms.mrt import BONUSES, MRT
from mrt_pipeline.rollouts.label import Prefix

binary = st.sampled_from([0.0, 1.0])
# For each group: J of its prefix, and (thinks on: reward, answers at once: reward) of two rollouts of each kind.
groups = st.lists(
    st.tuples(st.floats(0, 1), st.tuples(binary, binary), st.tuples(binary, binary)), min_size=1, max_size=3
)


@pytest.fixture(scope="session")
def batch(make_labelled):
    """Labelled rollouts as `sample_branches` makes them: in each group first those that think on."""

    def make(spec):
        prefix_tokens = np.array([6, 7])
        return [
            replace(
                make_labelled((0.0, 0.0), reward=reward, group=group),
                prefix=Prefix(prefix_tokens, success),
                direct=direct,
            )
            for group, (success, on, at_once) in enumerate(spec)
            for direct, rewards in ((False, on), (True, at_once))
            for reward in rewards
        ]

    return make


def advantages(algorithm, rollouts):
    weights = algorithm.weights(rollouts)
    assert all(np.all(w == w[0]) for w in weights)
    return np.array([w[0] for w in weights])


@given(groups)
@pytest.mark.parametrize("bonus", ["continue", "all"])
def test_alpha_zero_is_grpo_on_the_mixed_group(batch, bonus, spec):
    rollouts = batch(spec)
    for ours, grpos in zip(MRT(0.0, bonus, 1).weights(rollouts), GRPO().weights(rollouts), strict=True):
        assert np.array_equal(ours, grpos)


@given(groups, st.floats(0.1, 3))
def test_alpha_changes_the_update_by_the_centred_bonus_of_the_half_that_thinks_on(batch, spec, alpha):
    rollouts = batch(spec)
    bonus = [0.0 if r.direct else r.rollout.reward - r.prefix.success for r in rollouts]
    index = np.array([r.rollout.group for r in rollouts])
    expected = advantages(GRPO(), rollouts) + alpha * center_by_group(np.array(bonus), index)
    assert np.allclose(advantages(MRT(alpha, "continue", 1), rollouts), expected)


@given(groups, st.floats(0.1, 3))
def test_a_bonus_for_all_only_scales_grpo(batch, spec, alpha):
    rollouts = batch(spec)
    assert np.allclose(advantages(MRT(alpha, "all", 1), rollouts), (1 + alpha) * advantages(GRPO(), rollouts))


def test_the_default_is_not_a_scaled_grpo(batch):
    rollouts = batch([(0.25, (1.0, 1.0), (0.0, 1.0))])
    ours, grpos = advantages(MRT(1.0, "continue", 1), rollouts), advantages(GRPO(), rollouts)
    assert not np.allclose(ours, ours[0] / grpos[0] * grpos)


@given(groups, st.floats(0, 3))
def test_termination_has_the_prefix_as_baseline(batch, spec, alpha):
    rollouts = batch(spec)
    expected = [(1 + alpha) * (r.rollout.reward - r.prefix.success) for r in rollouts]
    assert np.allclose(advantages(MRT(alpha, "termination", 1), rollouts), expected)


@given(st.floats(0, 1), st.floats(0.1, 3))
def test_thinking_on_without_progress_gets_no_credit(batch, success, alpha):
    """r = J everywhere: nothing was gained, so no variant moves the policy."""
    rollouts = batch([(1.0, (1.0, 1.0), (1.0, 1.0)), (0.0, (0.0, 0.0), (0.0, 0.0))])
    for bonus in BONUSES:
        assert np.allclose(advantages(MRT(alpha, bonus, 1), rollouts), 0)


@given(groups, st.randoms(use_true_random=False))
@pytest.mark.parametrize("bonus", BONUSES)
def test_permuting_the_batch_permutes_the_weights(batch, bonus, spec, random):
    rollouts = batch(spec)
    order = list(range(len(rollouts)))
    random.shuffle(order)
    algorithm = MRT(0.7, bonus, 1)
    assert np.allclose(advantages(algorithm, [rollouts[i] for i in order]), advantages(algorithm, rollouts)[order])


def test_expected_weight_of_thinking_on(batch):
    """The docstring's ((1 + alpha) p - alpha J - q) / 2, by enumerating all rewards of a group of two and two."""
    p, q, success, alpha = 0.7, 0.4, 0.35, 0.8
    total = 0.0
    for rewards in np.ndindex(2, 2, 2, 2):
        chance = np.prod([(p if r else 1 - p) if i < 2 else (q if r else 1 - q) for i, r in enumerate(rewards)])
        on, at_once = tuple(map(float, rewards[:2])), tuple(map(float, rewards[2:]))
        total += chance * advantages(MRT(alpha, "continue", 1), batch([(success, on, at_once)]))[:2].mean()
    assert total == pytest.approx(((1 + alpha) * p - alpha * success - q) / 2)


@pytest.mark.parametrize(("bonus", "refresh_every"), [("some", 1), ("all", 0)])
def test_wrong_settings_are_refused(bonus, refresh_every):
    with pytest.raises(ValueError, match=r"some|at least 1"):
        MRT(1.0, bonus, refresh_every)
