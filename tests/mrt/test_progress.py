import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from mrt_pipeline.mrt.progress import discounted_progress, progress

curves = st.lists(st.floats(0, 1), min_size=1, max_size=12).map(np.array)


@given(curves)
def test_progress_telescopes(success):
    found = progress(success)
    assert found.shape == (len(success) - 1,)
    assert np.isclose(found.sum(), success[-1] - success[0], atol=1e-12)


def test_progress_is_after_minus_before():
    assert progress(np.array([0.25, 0.5, 0.125])).tolist() == [0.25, -0.375]


@given(curves)
def test_gamma_zero_is_raw_progress(success):
    assert np.array_equal(discounted_progress(success, 0.0), progress(success))


@given(curves)
def test_gamma_one_telescopes_to_the_end_minus_before(success):
    assert np.allclose(discounted_progress(success, 1.0), success[-1] - success[:-1], atol=1e-12)


@given(curves, st.floats(0, 1))
def test_discounted_progress_is_the_double_sum(success, gamma):
    steps = progress(success)
    expected = [sum(gamma ** (i - j) * steps[i] for i in range(j, len(steps))) for j in range(len(steps))]
    assert np.allclose(discounted_progress(success, gamma), expected, atol=1e-12)


@given(curves, st.floats(0, 1))
def test_the_input_is_left_alone(success, gamma):
    before = success.copy()
    discounted_progress(success, gamma)
    assert np.array_equal(success, before)


@pytest.mark.parametrize("gamma", [-0.01, 1.01, float("nan")])
def test_gamma_outside_its_range_is_refused(gamma):
    with pytest.raises(ValueError, match="gamma"):
        discounted_progress(np.array([0.0, 1.0]), gamma)
