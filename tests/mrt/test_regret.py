from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from mrt_pipeline.mrt.regret import AREAS, anytime_area, regret, step_area


@st.composite
def curves(draw):
    """Boundaries of a trace, the empty prefix first, and J there."""
    steps = draw(st.lists(st.integers(1, 9), max_size=8))
    n_tokens = np.cumsum([0, *steps])
    success = draw(st.lists(st.floats(0, 1), min_size=len(n_tokens), max_size=len(n_tokens)))
    return n_tokens, np.array(success)


budgets = st.integers(1, 60)


def height(n_tokens, success, x):
    points = [(0.0, 0.0), *zip(n_tokens, success, strict=True)]
    for (left, low), (right, high) in pairwise(points):
        if left <= x < right:
            return low + (high - low) * (x - left) / (right - left)
    return points[-1][1]


def integral(n_tokens, success, budget, cells=4):
    """Midpoint rule on a grid that holds every whole token: exact for pieces that are linear between whole tokens."""
    middles = (np.arange(budget * cells) + 0.5) / cells
    return sum(height(n_tokens, success, x) for x in middles) / (budget * cells)


@given(curves(), budgets)
def test_area_and_regret_equal_a_brute_force_integral(curve, budget):
    expected = integral(*curve, budget)
    assert anytime_area(*curve, budget) == pytest.approx(expected, abs=1e-9)
    assert regret(*curve, budget) == pytest.approx(1 - expected, abs=1e-9)


@given(curves(), budgets)
def test_the_step_area_adds_up_token_by_token(curve, budget):
    n_tokens, success = curve
    worth = [success[np.flatnonzero(n_tokens <= token)[-1]] for token in range(budget)]
    assert step_area(n_tokens, success, budget) == pytest.approx(np.mean(worth), abs=1e-9)
    assert regret(n_tokens, success, budget, "step") == pytest.approx(1 - np.mean(worth), abs=1e-9)


@given(curves(), st.integers(1, 9), budgets)
def test_a_curve_that_starts_late_rises_from_the_origin(curve, shift, budget):
    n_tokens, success = curve[0] + shift, curve[1]
    assert anytime_area(n_tokens, success, budget) == pytest.approx(integral(n_tokens, success, budget), abs=1e-9)


definitions = pytest.mark.parametrize("definition", AREAS)


@definitions
@given(curves(), st.floats(0.1, 60))
def test_regret_is_in_the_unit_interval(definition, curve, budget):
    assert -1e-12 <= regret(*curve, budget, definition) <= 1 + 1e-12


@definitions
@given(curves(), budgets, st.data())
def test_regret_falls_as_success_rises(definition, curve, budget, data):
    n_tokens, success = curve
    raised = np.array([data.draw(st.floats(value, 1)) for value in success])
    more, less = (regret(n_tokens, heights, budget, definition) for heights in (success, raised))
    assert less <= more + 1e-12


@definitions
@given(curves(), budgets)
def test_a_perfect_trace_has_no_regret_and_a_hopeless_one_all(definition, curve, budget):
    n_tokens = curve[0]
    assert regret(n_tokens, np.ones(len(n_tokens)), budget, definition) == pytest.approx(0, abs=1e-12)
    assert regret(n_tokens, np.zeros(len(n_tokens)), budget, definition) == 1


def test_a_perfect_trace_whose_first_point_is_late_pays_for_the_ramp_from_the_origin():
    assert regret(np.array([4, 6]), np.ones(2), 10) == pytest.approx(4 / 2 / 10)


@given(curves(), st.integers(1, 40))
def test_the_last_value_is_held(curve, extra):
    n_tokens, success = curve
    end = int(n_tokens[-1])
    held = anytime_area(n_tokens, success, end + extra) * (end + extra)
    until_end = anytime_area(n_tokens, success, end) * end if end else 0.0
    assert held - until_end == pytest.approx(success[-1] * extra, abs=1e-9)


def test_points_beyond_the_budget_only_matter_by_interpolation():
    near = anytime_area(np.array([0, 10]), np.array([0.0, 1.0]), 5)
    assert near == pytest.approx(0.25)
    assert anytime_area(np.array([0, 10, 20]), np.array([0.0, 1.0, 0.0]), 5) == pytest.approx(near)


def test_a_jump_at_the_budget_does_not_reach_back():
    # Two points at the budget: what comes before it is the ramp to the first of them.
    assert anytime_area(np.array([0, 5, 5]), np.array([0.0, 1.0, 0.0]), 5) == pytest.approx(0.5)


@definitions
@pytest.mark.parametrize("budget", [0, -1])
def test_a_budget_must_be_positive(definition, budget):
    with pytest.raises(ValueError, match="budget"):
        regret(np.array([0]), np.array([0.5]), budget, definition)


@definitions
def test_tokens_must_not_decrease(definition):
    with pytest.raises(ValueError, match="non-decreasing"):
        regret(np.array([0, 5, 4]), np.zeros(3), 10, definition)
