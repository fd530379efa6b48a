from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from tabular import Tabular

from mrt_pipeline.algorithms.base import curves, ending_tokens
from mrt_pipeline.algorithms.grpo import GRPO
from mrt_pipeline.algorithms.regret_to_go import RegretToGo
from mrt_pipeline.mrt import credit
from mrt_pipeline.mrt.baselines import area_to_go, centred_area_to_go
from mrt_pipeline.mrt.regret import step_area

successes = st.lists(st.floats(0, 1), min_size=1, max_size=5)
batches = st.lists(st.tuples(st.integers(0, 2), st.sampled_from([0.0, 1.0]), successes), min_size=1, max_size=8)


def labelled_batch(make_labelled, batch):
    return [make_labelled(success, group=group, reward=reward) for group, reward, success in batch]


def bonuses(rollouts, budget):
    """Before they are scaled."""
    return centred_area_to_go(*curves(rollouts)[1:], budget, ending_tokens(rollouts))


@given(successes, st.integers(1, 20), st.data())
def test_area_to_go_and_the_start_make_up_the_area_under_the_stepwise_curve(success, budget, data):
    steps = data.draw(st.lists(st.integers(1, 6), min_size=len(success) - 1, max_size=len(success) - 1))
    boundaries = np.cumsum([0, *steps])
    held = [success[int(np.searchsorted(boundaries, token, side="right")) - 1] for token in range(budget)]
    to_go = area_to_go(boundaries, np.array(success), budget)
    assert len(to_go) == len(success) - 1
    assert success[0] + (to_go[0] if len(to_go) else 0) == pytest.approx(np.mean(held), abs=1e-9)


@given(successes, st.integers(1, 20))
def test_area_to_go_only_looks_ahead(success, budget):
    boundaries = np.arange(len(success)) * 3
    whole = area_to_go(boundaries, np.array(success), budget)
    for j in range(len(whole)):
        assert np.allclose(whole[j:], area_to_go(boundaries[j:], np.array(success[j:]), budget), atol=1e-12)


def test_progress_beyond_the_budget_adds_nothing():
    assert area_to_go(np.array([0, 4, 8]), np.array([0.0, 0.5, 1.0]), 4).tolist() == [0, 0]
    assert area_to_go(np.array([0, 2, 8]), np.array([0.0, 0.5, 1.0]), 4).tolist() == [0.25, 0]


@given(batches)
def test_alpha_zero_is_grpo_exactly(make_labelled, batch):
    rollouts = labelled_batch(make_labelled, batch)
    algorithm = RegretToGo(alpha=0.0, budget=6, expected_outcome=False)
    for found, expected in zip(algorithm.weights(rollouts), GRPO().weights(rollouts), strict=True):
        assert np.array_equal(found, expected)


@given(batches, st.floats(0, 2))
def test_constant_success_gives_no_bonus(make_labelled, batch, alpha):
    rollouts = labelled_batch(make_labelled, [(group, reward, [0.3] * len(s)) for group, reward, s in batch])
    algorithm = RegretToGo(alpha=alpha, budget=6, expected_outcome=False)
    for found, expected in zip(algorithm.weights(rollouts), GRPO().weights(rollouts), strict=True):
        assert np.array_equal(found, expected)


@given(batches, st.randoms())
def test_permuting_rollouts_permutes_weights(make_labelled, batch, random):
    rollouts = labelled_batch(make_labelled, batch)
    order = random.sample(range(len(batch)), len(batch))
    weights = RegretToGo(alpha=0.5, budget=6).weights(rollouts)
    permuted = RegretToGo(alpha=0.5, budget=6).weights([rollouts[i] for i in order])
    assert all(np.allclose(permuted[k], weights[i], atol=1e-9) for k, i in enumerate(order))


@given(batches)
def test_the_bonus_is_the_normalised_credit_minus_that_of_the_others_at_the_same_time(make_labelled, batch):
    rollouts, alpha, budget = labelled_batch(make_labelled, batch), 0.5, 6

    def credit(success, token):  # one token an episode
        return area_to_go(np.arange(len(success)), np.array(success), budget)[token] if token < len(success) - 1 else 0

    expected = []
    for i, (group, _, success) in enumerate(batch):
        others = [s for k, (g, _, s) in enumerate(batch) if g == group and k != i]
        expected.append(
            [
                credit(success, token) - (np.mean([credit(s, token) for s in others]) if others else 0)
                for token in range(len(success))  # the last one is that which closes the thought
            ]
        )
    pooled = np.concatenate(expected)
    size = np.sqrt(np.mean(np.square(pooled))) if len(pooled) else 1.0
    weights = RegretToGo(alpha=alpha, budget=budget, expected_outcome=False).weights(rollouts)
    bonus = [found - grpo for found, grpo in zip(weights, GRPO().weights(rollouts), strict=True)]
    for found, values in zip(bonus, expected, strict=True):
        assert np.allclose(found[: len(values)], alpha / max(size, 1e-6) * np.array(values), atol=1e-7)
        assert np.allclose(found[len(values) :], 0)


def test_early_progress_is_worth_more_than_late_progress(make_labelled):
    early, late = make_labelled((0.0, 1.0, 1.0, 1.0)), make_labelled((0.0, 0.0, 0.0, 1.0))
    found = [weights[0] for weights in RegretToGo(alpha=1.0, budget=6).weights([early, late])]
    assert found[0] > 0 > found[1]


def test_which_tokens_end_the_stream_of_thinking(make_labelled):
    """The closing token; all of an answer that is the stream's last attempt; nothing where the thought was cut."""
    closed = make_labelled((0.0, 1.0))
    attempt = replace(closed, rollout=replace(closed.rollout, close=np.empty(0, dtype=np.int64)))
    cut = make_labelled((0.0, 1.0), stop_reason="length")
    assert [len(bonus) for bonus in bonuses([closed, attempt, cut], 4)] == [1 + 1, 1 + 2, 1]


@pytest.mark.parametrize("seed", range(20))
def test_the_expected_bonus_is_the_gradient_of_the_area(make_labelled, seed):
    """Every pair of traces of a random policy, J random after every token: groups of two, each the other's baseline."""
    (policy, traces, j), budget = Tabular.random(seed), 5

    total = policy.expected_over_pairs(traces, make_labelled, j, lambda pair: bonuses(pair, budget))

    def area(trace):
        item = policy.with_success(trace, make_labelled, j)
        return step_area(item.boundaries, item.success, budget)

    assert np.allclose(total, 2 * policy.gradient(traces, area), atol=1e-8)


@given(successes, st.lists(st.integers(1, 30), min_size=1, max_size=4))
def test_of_several_budgets_the_area_to_go_is_the_mean(success, budgets):
    boundaries = np.arange(len(success)) * 3
    each = [area_to_go(boundaries, np.array(success), budget) for budget in budgets]
    assert np.allclose(area_to_go(boundaries, np.array(success), budgets), np.mean(each, axis=0), atol=1e-12)


def test_budgets_are_multiples_of_the_training_budget(make_labelled):
    rollouts = [make_labelled(s, group=0, reward=r) for s, r in (((0.0, 0.5, 0.25), 1.0), ((0.25, 0.0), 0.0))]
    by_multiples = RegretToGo(budget=4, budget_multiples=[0.5, 2.0]).weights(rollouts)
    columns = ([1.0, 0.0], [0, 0], [[0, 1, 2], [0, 1]], [[0.0, 0.5, 0.25], [0.25, 0.0]])
    found = credit.regret_to_go(*columns, budget=[2, 8], expected_outcome=True)
    for weights, thought, stop, answer in zip(by_multiples, found.thought, found.stop, found.answer, strict=True):
        assert np.allclose(weights, [*thought, stop, *[answer] * (len(weights) - len(thought) - 1)])


def test_with_the_expected_outcome_the_thought_has_J_at_its_end(make_labelled):
    rollouts = [make_labelled((0.0, 0.75), group=0, reward=0.0), make_labelled((0.0, 0.25), group=0, reward=1.0)]
    found = RegretToGo(alpha=0.0, budget=6, expected_outcome=True).weights(rollouts)
    assert np.allclose(found[0][:2], 0.25) and np.allclose(found[0][2:], -0.75)
    assert np.allclose(found[1][:2], -0.25) and np.allclose(found[1][2:], 0.75)
