from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from mrt_pipeline.algorithms.brpo import BRPO
from mrt_pipeline.mrt.baselines import budget_relative_advantages
from mrt_pipeline.rollouts.label import ForcedAnswer

success_tables = st.tuples(st.integers(1, 4), st.integers(1, 5)).flatmap(
    lambda shape: arrays(np.float64, shape, elements=st.floats(0, 1))
)


def by_the_formula(success):
    """docs/method.md, in plain loops; slots are counted from 1 here."""
    traces, slots = success.shape
    result = np.empty_like(success)
    for g in range(traces):
        for s in range(1, slots + 1):
            held = sum(1 / slots for t in range(s, slots + 1))
            value = sum(success[g, t - 1] / slots for t in range(s, slots + 1))
            mean = np.mean([sum(success[h, t - 1] / slots for t in range(s, slots + 1)) for h in range(traces)])
            so_far = sum(2**t * success[g, t - 1] for t in range(1, s)) / max(1, sum(2**t for t in range(1, s)))
            result[g, s - 1] = value - ((s - 1) / slots * so_far * held + (slots - s + 1) / slots * mean)
    return result


@given(success_tables)
def test_advantages_follow_the_formula(success):
    assert np.allclose(budget_relative_advantages(success), by_the_formula(success))


@given(st.floats(0, 1), st.integers(1, 4), st.integers(1, 5))
def test_constant_success_gives_no_advantage(level, traces, slots):
    assert np.allclose(budget_relative_advantages(np.full((traces, slots), level)), 0)


@given(success_tables, st.randoms(use_true_random=False))
def test_permuting_a_group_permutes_its_advantages(success, random):
    order = list(range(len(success)))
    random.shuffle(order)
    assert np.allclose(budget_relative_advantages(success[order]), budget_relative_advantages(success)[order])


@given(success_tables)
def test_the_baseline_of_a_slot_does_not_see_its_own_tokens_but_through_the_group_mean(success):
    """Changing q at later slots changes A only through R and the group mean: V1 looks back."""
    changed = success.copy()
    changed[0, -1] = 1 - changed[0, -1]
    slots, traces = success.shape[1], len(success)
    difference = (budget_relative_advantages(changed) - budget_relative_advantages(success))[0]
    delta = (changed - success)[0, -1] / slots
    expected = [delta * (1 - (slots - s) / slots / traces) for s in range(slots)]
    assert np.allclose(difference, expected)


def labelled(make_labelled, n, at_cuts, **kwargs):
    return replace(make_labelled((0.0, 0.0), boundaries=[0, n], **kwargs), at_cuts=np.asarray(at_cuts, dtype=float))


def test_each_token_gets_its_slot_and_the_end_of_the_thought_too(make_labelled):
    algorithm = BRPO(slots=4, answer_weight=0.5, budget=8)  # budgets 2, 4, 6, 8
    success = np.array([[0.0, 0.5, 1.0, 1.0], [0.1, 0.2, 0.2, 0.2]])
    rollouts = [
        labelled(make_labelled, 5, success[0], reward=1.0),
        labelled(make_labelled, 3, success[1], reward=0.0),
    ]
    a = by_the_formula(success)
    first, second = algorithm.weights(rollouts)
    # Five thinking tokens lie in slots 1 1 2 2 3; the close token is the sixth token; then two answer tokens.
    assert np.allclose(first, [*a[0, [0, 0, 1, 1, 2, 2]], *[0.5 * (1 - 1.0)] * 2])
    assert np.allclose(second, [*a[1, [0, 0, 1, 1]], *[0.5 * (0 - 0.2)] * 2])


def test_a_thought_of_the_whole_budget_stays_in_the_last_slot(make_labelled):
    algorithm = BRPO(slots=2, answer_weight=1.0, budget=4)
    weights = algorithm.weights([labelled(make_labelled, 4, [0.2, 0.9])])[0]
    assert np.allclose(weights[:5], by_the_formula(np.array([[0.2, 0.9]]))[0, [0, 0, 1, 1, 1]])


@pytest.mark.parametrize(("n", "cuts", "answers"), [(0, [0, 0, 0], []), (5, [2, 4, 5], [2, 4]), (6, [2, 4, 6], [2, 4])])
def test_where_it_asks_and_answers(make_labelled, make_rollout, n, cuts, answers):
    algorithm = BRPO(slots=3, answer_weight=1.0, budget=6)
    labelled = replace(make_labelled((0.0,)), rollout=make_rollout(thought=np.arange(n)))
    assert algorithm.cuts(labelled, np.random.default_rng(0)) == cuts
    assert algorithm.answers(labelled) == answers


def test_forced_answers_are_trained_with_reward_minus_success(make_labelled, make_rollout):
    answers = [ForcedAnswer(0, 1, 0.25, make_rollout(thought=(7,), reward=reward)) for reward in (0.0, 1.0)]
    weights = BRPO(slots=2, answer_weight=0.5, budget=4).answer_weights([make_labelled()], answers)
    assert [w[-1] for w in weights] == [-0.125, 0.375]
    assert all(w[0] == 0 for w in weights)
