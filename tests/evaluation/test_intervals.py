import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st

from mrt_pipeline.evaluation.intervals import BASE, Intervals, problem_means


def test_problem_means_average_the_traces_of_a_problem():
    means = problem_means([1.0, 0.0, 0.5, 0.25], ["b", "a", "b", "a"])
    assert means.index.tolist() == ["a", "b"]
    assert means.tolist() == [0.125, 0.75]


@given(st.lists(st.floats(0, 1), min_size=1, max_size=15), st.integers(0, 5))
def test_the_mean_lies_in_its_interval_within_the_range_of_the_values(values, seed):
    mean, low, high = Intervals(0.95, 100, seed).mean(values)
    assert mean == pytest.approx(np.mean(values))
    assert low <= mean + 1e-9 and mean - 1e-9 <= high
    assert min(values) - 1e-9 <= low and high <= max(values) + 1e-9


@pytest.mark.parametrize("values", [[0.3], [0.7, 0.7, 0.7]])
def test_without_spread_the_interval_is_the_mean(values):
    assert Intervals(0.95, 100, 0).mean(values) == pytest.approx([values[0]] * 3)


def test_the_width_is_that_of_the_normal_approximation():
    values = np.random.default_rng(0).normal(size=400)
    mean, low, high = Intervals(0.95, 4000, 0).mean(values)
    standard_error = values.std() / np.sqrt(len(values))
    assert (high - mean) / standard_error == pytest.approx(1.96, rel=0.08)
    assert (mean - low) / standard_error == pytest.approx(1.96, rel=0.08)
    narrow = Intervals(0.5, 4000, 0).mean(values)
    assert (narrow[2] - narrow[1]) / standard_error == pytest.approx(2 * 0.674, rel=0.1)


def test_the_seed_repeats_and_matters():
    values = np.random.default_rng(0).random(30)
    assert Intervals(0.9, 50, 1).mean(values) == Intervals(0.9, 50, 1).mean(values)
    assert Intervals(0.9, 50, 1).mean(values) != Intervals(0.9, 50, 2).mean(values)


numbers = st.lists(st.tuples(st.floats(0, 1), st.floats(0, 1)), min_size=1, max_size=12)


@given(numbers, st.integers(0, 5))
def test_a_paired_difference_is_the_interval_of_the_differences(pairs, seed):
    values, base = (pd.Series(column, dtype=float) for column in zip(*pairs, strict=True))
    expected = Intervals(0.9, 60, seed).mean(values - base)
    assert Intervals(0.9, 60, seed).difference(values, base) == pytest.approx(expected, abs=1e-9)


@given(numbers, st.floats(-1, 1))
def test_a_constant_difference_is_a_point_and_that_to_itself_is_exactly_0(pairs, shift):
    values = pd.Series([value for value, _ in pairs])
    assert Intervals(0.95, 40, 0).difference(values, values) == (0, 0, 0)
    assert Intervals(0.95, 40, 0).difference(values + shift, values) == pytest.approx((shift,) * 3, abs=1e-12)


def test_a_difference_is_of_the_same_problems_and_of_those_that_have_a_value():
    values, base = pd.Series({"a": 1.0, "b": 0.0, "c": np.nan}), pd.Series({"c": 0.5, "b": 0.25, "a": 0.0})
    difference, low, high = Intervals(0.95, 200, 0).difference(values, base)
    assert difference == pytest.approx(0.5 - 0.25)
    drawn = np.random.default_rng(0).integers(0, 3, (200, 3))
    found = [np.nanmean(values.iloc[p]) - base[["a", "b", "c"]].iloc[p].mean() for p in drawn if (p < 2).any()]
    assert (low, high) == pytest.approx(tuple(np.quantile(found, [0.025, 0.975])))
    assert np.isnan(Intervals(0.95, 20, 0).difference(values * np.nan, base)).all()


def test_a_table_has_the_difference_to_the_base_in_the_same_place():
    ours, nothing = pd.Series({"a": 1.0, "b": 0.5, "c": np.nan}), pd.Series({"a": np.nan})
    values = {(BASE, 8): ours, (BASE, 9): nothing, ("trained", 7): ours}
    values |= {("trained", 8): ours - 0.25, ("trained", 9): nothing}
    table = Intervals(0.95, 50, 0).table("regret", ["policy", "budget"], values)
    found = ["regret", "ci_low", "ci_high", "difference", "difference_low", "difference_high"]
    assert table.columns.tolist() == ["policy", "budget", *found]
    assert table["regret"].tolist() == pytest.approx([0.75, np.nan, 0.75, 0.5, np.nan], nan_ok=True)
    assert table["ci_low"][0] <= 0.75 <= table["ci_high"][0]
    assert table["difference"].tolist() == pytest.approx([np.nan, np.nan, np.nan, -0.25, np.nan], nan_ok=True)
    assert table[found].iloc[[1, 4]].isna().all(axis=None)
