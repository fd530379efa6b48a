import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st

from mrt_pipeline.evaluation.intervals import difference_interval, mean_interval, measured, problem_means


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


numbers = st.lists(st.tuples(st.floats(0, 1), st.floats(0, 1)), min_size=1, max_size=12)


@given(numbers, st.integers(0, 5))
def test_a_paired_difference_is_the_interval_of_the_differences(pairs, seed):
    values, base = (pd.Series(column, dtype=float) for column in zip(*pairs, strict=True))
    expected = mean_interval(values - base, 0.9, 60, seed)
    assert difference_interval(values, base, 0.9, 60, seed) == pytest.approx(expected, abs=1e-9)


@given(numbers, st.floats(-1, 1))
def test_a_constant_difference_is_a_point_and_that_to_itself_is_exactly_0(pairs, shift):
    values = pd.Series([value for value, _ in pairs])
    assert difference_interval(values, values, 0.95, 40, 0) == (0, 0, 0)
    assert difference_interval(values + shift, values, 0.95, 40, 0) == pytest.approx((shift,) * 3, abs=1e-12)


def test_a_difference_is_of_the_same_problems_and_of_those_that_have_a_value():
    values, base = pd.Series({"a": 1.0, "b": 0.0, "c": np.nan}), pd.Series({"c": 0.5, "b": 0.25, "a": 0.0})
    difference, low, high = difference_interval(values, base, 0.95, 200, 0)
    assert difference == pytest.approx(0.5 - 0.25)
    drawn = np.random.default_rng(0).integers(0, 3, (200, 3))
    found = [np.nanmean(values.iloc[p]) - base[["a", "b", "c"]].iloc[p].mean() for p in drawn if (p < 2).any()]
    assert (low, high) == pytest.approx(tuple(np.quantile(found, [0.025, 0.975])))
    assert np.isnan(difference_interval(values * np.nan, base, 0.95, 20, 0)).all()


def test_the_columns_of_a_table_are_empty_where_there_is_nothing():
    values = pd.Series({"a": 1.0, "b": 0.5, "c": np.nan})
    alone = measured("regret", values, None, 0.95, 50, 0)
    assert alone["regret"] == 0.75 and alone["ci_low"] <= 0.75 <= alone["ci_high"] and np.isnan(alone["difference"])
    assert measured("regret", values, values, 0.95, 50, 0)["difference"] == 0
    assert np.isnan(list(measured("regret", values * np.nan, values, 0.95, 50, 0).values())).all()
