import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from mrt_pipeline.evaluation.intervals import mean_interval, problem_means


def test_problem_means_average_the_traces_of_a_problem():
    means = problem_means([1.0, 0.0, 0.5, 0.25], ["b", "a", "b", "a"])
    assert means.index.tolist() == ["a", "b"]
    assert means.tolist() == [0.125, 0.75]


@given(st.lists(st.floats(0, 1), min_size=1, max_size=15), st.integers(0, 5))
def test_the_mean_lies_in_its_interval_within_the_range_of_the_values(values, seed):
    mean, low, high = mean_interval(values, 0.95, 100, seed)
    assert mean == pytest.approx(np.mean(values))
    assert low <= mean + 1e-9 and mean - 1e-9 <= high
    assert min(values) - 1e-9 <= low and high <= max(values) + 1e-9


@pytest.mark.parametrize("values", [[0.3], [0.7, 0.7, 0.7]])
def test_without_spread_the_interval_is_the_mean(values):
    assert mean_interval(values, 0.95, 100, 0) == pytest.approx([values[0]] * 3)


def test_the_width_is_that_of_the_normal_approximation():
    values = np.random.default_rng(0).normal(size=400)
    mean, low, high = mean_interval(values, 0.95, 4000, 0)
    standard_error = values.std() / np.sqrt(len(values))
    assert (high - mean) / standard_error == pytest.approx(1.96, rel=0.08)
    assert (mean - low) / standard_error == pytest.approx(1.96, rel=0.08)
    narrow = mean_interval(values, 0.5, 4000, 0)
    assert (narrow[2] - narrow[1]) / standard_error == pytest.approx(2 * 0.674, rel=0.1)


def test_the_seed_repeats_and_matters():
    values = np.random.default_rng(0).random(30)
    assert mean_interval(values, 0.9, 50, 1) == mean_interval(values, 0.9, 50, 1)
    assert mean_interval(values, 0.9, 50, 1) != mean_interval(values, 0.9, 50, 2)
