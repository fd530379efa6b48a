import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from mrt_pipeline.algorithms.star import STaR


@given(st.lists(st.tuples(st.integers(0, 2), st.sampled_from([0.0, 1.0])), max_size=8))
def test_right_traces_have_weight_one_and_wrong_ones_none(make_labelled, batch):
    rollouts = [make_labelled(group=group, reward=reward) for group, reward in batch]
    for (_, reward), weights in zip(batch, STaR().weights(rollouts), strict=True):
        assert np.array_equal(weights, np.full(6, reward))


def test_it_is_likelihood_training_that_needs_no_prover():
    assert STaR.likelihood and not STaR.needs_success
