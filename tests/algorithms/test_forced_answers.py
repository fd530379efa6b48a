from dataclasses import replace

import numpy as np
import pytest

from mrt_pipeline.algorithms.brpo import BRPO
from mrt_pipeline.algorithms.forced_answers import WithForcedAnswers
from mrt_pipeline.algorithms.grpo import GRPO
from mrt_pipeline.algorithms.mrt import MRT
from mrt_pipeline.algorithms.mrt_online import MRTOnline
from mrt_pipeline.algorithms.star import STaR
from mrt_pipeline.rollouts.label import ForcedAnswer


@pytest.mark.parametrize("inner", [GRPO(), MRTOnline(alpha=0.5, gamma=0.8)])
def test_the_rollouts_keep_their_weights(make_labelled, inner):
    batch = [make_labelled(reward=reward) for reward in (0.0, 1.0)]
    ours = WithForcedAnswers(inner, 1.0).weights(batch)
    assert all(np.array_equal(a, b) for a, b in zip(ours, inner.weights(batch), strict=True))


def test_j_at_the_random_cut_is_not_taken_for_one_of_the_algorithms_own(make_labelled):
    inner, at_cuts = BRPO(slots=2, budget=4), np.array([[0.25, 0.5], [0.5, 1.0]])
    batch = [replace(make_labelled(), at_cuts=j) for j in at_cuts]
    with_random = [replace(item, cuts=np.array([2, 3, 1]), at_cuts=np.append(item.at_cuts, 0.75)) for item in batch]
    ours = WithForcedAnswers(inner, 1.0).weights(with_random)
    assert all(np.array_equal(a, b) for a, b in zip(ours, inner.weights(batch), strict=True))


def test_cuts_are_uniform_over_the_thought_and_its_end(make_labelled):
    rng, labelled = np.random.default_rng(0), make_labelled()  # of three tokens
    found = [WithForcedAnswers(GRPO(), 1.0).cuts(labelled, rng)[-1] for _ in range(400)]
    counts = np.bincount(found, minlength=4)
    assert len(counts) == 4
    assert abs(counts - 100).max() < 45  # five standard deviations


def test_both_kinds_of_answers_get_their_own_weights(make_labelled, make_rollout):
    algorithm = WithForcedAnswers(BRPO(slots=2, answer_weight=0.5, budget=4), 0.1)
    rollouts = [make_labelled(), make_labelled()]
    answers = [
        ForcedAnswer(i, cut, 0.25, make_rollout(thought=(7,), reward=1.0)) for i, cut in ((0, 2), (0, 1), (1, 3))
    ]
    weights = [w[-1] for w in algorithm.answer_weights(rollouts, answers)]
    assert np.allclose(weights, [0.5 * 0.75, 0.1 * 0.75, 0.1 * 0.75])


def test_it_asks_for_the_same_as_the_algorithm_inside():
    for inner in (
        GRPO(),
        MRTOnline(alpha=0.5, gamma=0.8),
        MRT(bonus="continue"),
    ):
        outer = WithForcedAnswers(inner, 1.0)
        names = ("name", "needs_success", "likelihood", "prefixes_every", "from_base")
        assert [getattr(outer, name) for name in names] == [getattr(inner, name) for name in names]


def test_likelihood_is_refused():
    with pytest.raises(ValueError, match="negative weights"):
        WithForcedAnswers(STaR(), 1.0)
