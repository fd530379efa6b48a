from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from tabular import Tabular

from mrt_pipeline.algorithms.anytime import Anytime
from mrt_pipeline.algorithms.base import curves, ending_tokens
from mrt_pipeline.mrt.baselines import centred_anytime
from mrt_pipeline.mrt.regret import step_area

successes = st.lists(st.floats(0, 1), min_size=1, max_size=5)
batches = st.lists(st.tuples(st.integers(0, 2), st.sampled_from([0.0, 1.0]), successes), min_size=1, max_size=8)
BUDGETS = [2, 5]


def credits(rollouts, alpha=1.0, budgets=BUDGETS):
    """Before they are scaled."""
    return centred_anytime(*curves(rollouts)[1:], budgets, alpha, ending_tokens(rollouts))


@pytest.mark.parametrize("alpha", [0.0, 1.0, 2.5])
@pytest.mark.parametrize("seed", range(5))
def test_the_expected_credit_is_the_gradient_of_the_end_and_of_the_areas(make_labelled, seed, alpha):
    """Every pair of traces of a random policy, J random after every token: groups of two, each the other's baseline."""
    policy, traces, j = Tabular.random(seed)
    total = policy.expected_over_pairs(traces, make_labelled, j, lambda pair: credits(pair, alpha))

    def objective(trace):
        item = policy.with_success(trace, make_labelled, j)
        areas = [step_area(item.boundaries, item.success, budget) for budget in BUDGETS]
        return item.success[-1] + alpha * np.mean(areas)

    assert np.allclose(total, 2 * policy.gradient(traces, objective), atol=1e-8)


@given(batches)
def test_constant_success_gives_no_weight_to_thinking(make_labelled, batch):
    rollouts = [make_labelled([0.3] * len(s), group=group, reward=reward) for group, reward, s in batch]
    for item, weights in zip(rollouts, Anytime(budget=6).weights(rollouts), strict=True):
        assert np.allclose(weights[: len(item.rollout.thought) + 1], 0)
        assert np.allclose(weights[len(item.rollout.thought) + 1 :], item.rollout.reward - 0.3)


def test_who_has_found_the_answer_is_compared_with_nothing(make_labelled):
    """One found at once and waits, the other two find at the last token; nobody has more than that to gain."""
    batch = [make_labelled(s, group=0) for s in ((0.0, 1.0, 1.0, 1.0), (0.0, 0.0, 0.0, 1.0), (0.0, 0.0, 0.0, 0.0))]
    found, late, never = credits(batch, alpha=0.0)
    assert np.allclose(found, [1 - 1 / 3, 0, 0, 0])  # of the two others one finds in the end
    assert np.allclose(late, [1 - 1 / 3, 1 - 0, 1 - 0, 0])  # from the second token on only one other may still gain
    assert np.allclose(never, [0 - 2 / 3, 0 - 1 / 2, 0 - 1 / 2, 0])  # where the others stop they have nothing to gain


def test_siblings_that_have_next_to_nothing_to_gain_say_next_to_nothing(make_labelled):
    """They lost what they had: a gain of -1 for a room of .001, which is no forecast for one that has room for 1."""
    lost = [make_labelled((0.0, 0.999, 0.0), group=0) for _ in range(3)]
    searching = make_labelled((0.0, 0.0, 0.0), group=0)
    assert np.abs(credits([*lost, searching], alpha=0.0)[-1]).max() < 0.01


def test_a_trace_that_does_not_answer_is_worth_its_reward(make_labelled):
    """J at its end is what it could have answered."""
    silent = make_labelled((0.0, 1.0), group=0, reward=0.0, stop_reason="eos")
    silent = replace(silent, rollout=replace(silent.rollout, close=np.empty(0, dtype=np.int64)))
    other = make_labelled((0.0, 0.5), group=0)
    first, second = Anytime(budget=4, alpha=0.0).weights([silent, other])
    assert first[0] < 0 < second[0]


@given(batches, st.randoms(use_true_random=False))
def test_permuting_rollouts_permutes_weights(make_labelled, batch, random):
    rollouts = [make_labelled(success, group=group, reward=reward) for group, reward, success in batch]
    order = random.sample(range(len(batch)), len(batch))
    weights, permuted = (Anytime(budget=6).weights(own) for own in (rollouts, [rollouts[i] for i in order]))
    assert all(np.allclose(permuted[k], weights[i], atol=1e-9) for k, i in enumerate(order))


@pytest.mark.parametrize("budgets", [[], [0.0], [4, -1]])
def test_budgets_are_positive(make_labelled, budgets):
    with pytest.raises(ValueError, match="budget must be positive"):
        credits([make_labelled((0.0, 0.5))], budgets=budgets)
