from types import SimpleNamespace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from mrt_pipeline.algorithms.mrt_star import MRTStar
from mrt_pipeline.algorithms.star import STaR


@given(st.lists(st.tuples(st.integers(0, 2), st.sampled_from([0.0, 1.0])), max_size=8))
def test_right_traces_have_weight_one_and_wrong_ones_none(make_labelled, batch):
    rollouts = [make_labelled(group=group, reward=reward) for group, reward in batch]
    for (_, reward), weights in zip(batch, STaR().weights(rollouts), strict=True):
        assert np.array_equal(weights, np.full(6, reward))


def test_it_is_likelihood_training_that_needs_no_prover():
    assert STaR.likelihood and not STaR.needs_success


def tree(answer_weight=0.0, minibatches=2):
    """The other parameters, as far as an algorithm looks at them."""
    training = SimpleNamespace(answer_weight=answer_weight, learner=SimpleNamespace(minibatches=minibatches))
    return SimpleNamespace(training=training)


@pytest.mark.parametrize("algorithm", [STaR, MRTStar])
def test_what_must_fit_of_the_other_parameters(algorithm):
    algorithm().check(tree())
    with pytest.raises(ValueError, match=f"answer_weight must be 0 for {algorithm().name}:"):
        algorithm().check(tree(answer_weight=0.5))
    with pytest.raises(ValueError, match="one step teaches nothing"):
        algorithm().check(tree(minibatches=1))
    algorithm(start_from="current").check(tree(minibatches=1))


def test_what_an_iteration_starts_from():
    assert STaR().from_base and not STaR(start_from="current").from_base
    with pytest.raises(ValueError, match="'base' or 'current'"):
        STaR(start_from="scratch")
