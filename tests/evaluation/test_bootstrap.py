import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from mrt_pipeline.evaluation.intervals import Arm, Bootstrap

KEY = ("accuracy", 96, False)


def arm(name, values, seeds=None, bases=()):
    values = np.atleast_2d(np.asarray(values, dtype=float))
    return Arm(name, tuple(seeds or range(len(values))), {KEY: values}, bases)


def test_draws_follow_resampled_indices():
    """Against the plain definition, for one seed: the mean over drawn problems."""
    one = arm("a", np.random.default_rng(0).random((1, 7)))
    bootstrap = Bootstrap([one], 20, 0.95, 1)
    for draw, problems in zip(bootstrap.draws(one, one.values[KEY]), bootstrap._problems * 7, strict=True):
        p = np.repeat(np.arange(7), problems.round().astype(int))
        assert len(p) == 7
        assert draw == pytest.approx(one.values[KEY][0, p].mean())


@pytest.mark.parametrize("n_seeds", [3, 5])
def test_intervals_cover_the_truth_though_seeds_are_few(n_seeds):
    """Seeds and problems both vary; 95 % intervals hold the true mean 0 in at least about 95 % of repetitions.

    Without the correction for few seeds it is 82 % with three seeds and 90 % with five.
    """
    rng = np.random.default_rng(0)
    covered = 0
    for _ in range(400):
        numbers = rng.normal(size=(n_seeds, 1)) + rng.normal(size=(1, 30)) + rng.normal(size=(n_seeds, 30))
        one = arm("a", numbers)
        bootstrap = Bootstrap([one], 400, 0.95, 0)
        low, high = bootstrap.interval(bootstrap.draws(one, one.values[KEY]))
        covered += low <= 0 <= high
    assert covered / 400 >= 0.935


def test_with_one_seed_it_is_the_bootstrap_over_problems():
    """The same quantiles as drawing problems by index, up to the noise of the draws."""
    one = arm("a", np.random.default_rng(0).random((1, 40)))
    bootstrap = Bootstrap([one], 20_000, 0.9, 0)
    drawn = np.random.default_rng(1).integers(0, 40, (20_000, 40))
    expected = np.quantile(one.values[KEY][0][drawn].mean(axis=1), [0.05, 0.95])
    found = bootstrap.interval(bootstrap.draws(one, one.values[KEY]))
    assert found == pytest.approx(expected, abs=0.003)


@given(st.floats(0, 1), st.integers(1, 4), st.integers(1, 9))
def test_the_interval_of_a_constant_is_a_point(value, n_seeds, n_problems):
    one = arm("a", np.full((n_seeds, n_problems), value))
    bootstrap = Bootstrap([one], 30, 0.95, 0)
    assert bootstrap.interval(bootstrap.draws(one, one.values[KEY])) == pytest.approx((value, value), abs=1e-12)


with_gaps = arrays(np.float64, (2, 7), elements=st.one_of(st.floats(0, 1), st.just(np.nan)))


@given(with_gaps)
def test_draws_with_gaps_are_means_of_the_drawn_problems_that_have_a_value(values):
    one = arm("a", np.zeros((2, 7)))
    bootstrap = Bootstrap([one], 15, 0.95, 3)
    draws = bootstrap.draws(one, values, widen=False)
    for draw, problems, seeds in zip(draws, bootstrap._problems * 7, bootstrap._drawn["a"], strict=True):
        p = np.repeat(np.arange(7), problems.round().astype(int))
        means = [seed[p][~np.isnan(seed[p])] for seed in values]
        if all(len(known) for known in means):
            assert draw == pytest.approx(sum(w * known.mean() for w, known in zip(seeds, means, strict=True)))
        else:
            assert np.isnan(draw)
    low, high = bootstrap.interval(draws)
    assert np.isnan(low) == np.isnan(draws).all() and not low > high


@given(with_gaps)
def test_the_mean_of_an_arm_is_over_seeds_of_the_means_over_problems(values):
    each = [seed[~np.isnan(seed)] for seed in values]
    expected = np.mean([known.mean() for known in each]) if all(map(len, each)) else np.nan
    assert arm("a", values).mean(values) == pytest.approx(expected, nan_ok=True)


def test_draws_that_are_not_widened_stay_within_the_values():
    one = arm("a", [[1.0] * 5, [2.0] * 5])
    bootstrap = Bootstrap([one], 200, 0.95, 0)
    plain, widened = (bootstrap.draws(one, one.values[KEY], widen=widen) for widen in (False, True))
    assert set(plain.round(9)) == {1.0, 1.5, 2.0}
    assert widened.min() < 0 and np.allclose(
        (widened - 1.5) / (plain - 1.5 + (plain == 1.5)), (widened - 1.5) * 2 * np.sign(plain - 1.5)
    )


def test_bases_count_equally_however_many_runs_each_has():
    three_and_one = arm("a", [[1.0] * 3, [2.0] * 3, [3.0] * 3, [6.0] * 3], bases=("x", "y", "x", "x"))
    values = three_and_one.values[KEY]
    assert three_and_one.mean(values) == pytest.approx(((1 + 3 + 6) / 3 + 2) / 2)
    draws = Bootstrap([three_and_one], 4000, 0.95, 0).draws(three_and_one, values)
    assert draws.mean() == pytest.approx(three_and_one.mean(values), abs=0.1)
    only_seeds_of_x = Bootstrap([three_and_one], 4000, 0.95, 0).draws(three_and_one, np.where(values == 2, 7.0, values))
    assert np.allclose(only_seeds_of_x - draws, (7 - 2) / 2)  # what has one run is the same in every draw


@pytest.mark.parametrize("n_seeds", [3, 5])
def test_intervals_over_two_bases_cover_the_mean_of_these_bases(n_seeds):
    """Seeds vary around the mean of each base; these differ by far more, which is no part of the interval."""
    rng, covered, widths = np.random.default_rng(1), 0, []
    for _ in range(300):
        noise = rng.normal(size=(2 * n_seeds, 1)) + rng.normal(size=(1, 30)) + rng.normal(size=(2 * n_seeds, 30))
        one = arm("a", np.repeat([[-20.0], [20.0]], n_seeds, axis=0) + noise, bases=("x",) * n_seeds + ("y",) * n_seeds)
        bootstrap = Bootstrap([one], 400, 0.95, 0)
        low, high = bootstrap.interval(bootstrap.draws(one, one.values[KEY]))
        covered, widths = covered + (low <= 0 <= high), [*widths, high - low]
    assert covered / 300 >= 0.93 and np.mean(widths) < 10


def test_arms_with_the_same_bases_and_seeds_are_drawn_together():
    numbers = np.random.default_rng(0).random((4, 6))
    given = {"seeds": (1, 2, 1, 2), "bases": ("x", "x", "y", "y")}
    a, b = arm("a", numbers, **given), arm("b", numbers + 0.1, **given)
    bootstrap = Bootstrap([a, b], 50, 0.95, 0)
    assert bootstrap.difference(b, b.values[KEY], a, a.values[KEY]) == pytest.approx((0.1, 0.1, 0.1))
