import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from mrt_pipeline.evaluation.intervals import Arm, Bootstrap, arm_mean

KEY = ("accuracy", 96, False)


def arm(name, values, seeds=None):
    values = np.atleast_2d(np.asarray(values, dtype=float))
    return Arm(name, tuple(seeds or range(len(values))), {KEY: values}, {})


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
    assert arm_mean(values) == pytest.approx(expected, nan_ok=True)


def test_draws_that_are_not_widened_stay_within_the_values():
    one = arm("a", [[1.0] * 5, [2.0] * 5])
    bootstrap = Bootstrap([one], 200, 0.95, 0)
    plain, widened = (bootstrap.draws(one, one.values[KEY], widen=widen) for widen in (False, True))
    assert set(plain.round(9)) == {1.0, 1.5, 2.0}
    assert widened.min() < 0 and np.allclose(
        (widened - 1.5) / (plain - 1.5 + (plain == 1.5)), (widened - 1.5) * 2 * np.sign(plain - 1.5)
    )
