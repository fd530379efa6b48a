import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from mrt_pipeline.algorithms.mrt_star import MRTStar
from mrt_pipeline.rollouts.label import ForcedAnswer


@pytest.mark.parametrize(
    ("success", "cut"),
    [((0.1, 0.5, 0.9, 0.2), 2), ((0.9, 0.1, 0.2), 0), ((0.0, 0.7, 0.7), 1), ((0.2, 0.3), 1), ((0.4, 0.4), 0)],
)
def test_a_trace_is_cut_where_it_was_best_first(make_labelled, success, cut):
    assert MRTStar(keep=1).answers(make_labelled(success)) == [cut]


def kept(weights):
    return [bool(w.all()) for w in weights]


def make_batch(make_labelled, make_rollout, batch):
    """(group, reward of the cut, J before, J at best) for each trace."""
    rollouts = [make_labelled((low, high), group=group) for group, _, low, high in batch]
    answers = [
        ForcedAnswer(i, 1, high, make_rollout(thought=np.arange(6, 7), group=group, reward=reward))
        for i, (group, reward, _, high) in enumerate(batch)
    ]
    return rollouts, answers


def test_the_right_cuts_with_most_progress_of_each_problem_are_kept(make_labelled, make_rollout):
    batch = [
        (0, 1.0, 0.1, 0.4),
        (0, 1.0, 0.1, 0.9),
        (0, 0.0, 0.0, 1.0),  # most progress, but a wrong answer
        (1, 1.0, 0.5, 0.6),
        (1, 1.0, 0.6, 0.6),  # no progress
    ]
    rollouts, answers = make_batch(make_labelled, make_rollout, batch)
    assert kept(MRTStar(keep=1).answer_weights(rollouts, answers)) == [False, True, False, True, False]
    assert kept(MRTStar(keep=2).answer_weights(rollouts, answers)) == [True, True, False, True, False]


def test_of_equal_progress_the_shorter_cut_is_kept(make_labelled, make_rollout):
    rollouts = [make_labelled((0.0, 0.0, 1.0)), make_labelled((0.0, 1.0, 1.0))]
    answers = [
        ForcedAnswer(i, n, 1.0, make_rollout(thought=np.arange(6, 6 + n), group=0, reward=1.0))
        for i, n in enumerate((2, 1))
    ]
    assert kept(MRTStar(keep=1).answer_weights(rollouts, answers)) == [False, True]


levels = st.sampled_from([0.0, 0.25, 0.5, 1.0])


@given(st.lists(st.tuples(st.integers(0, 2), st.sampled_from([0.0, 1.0]), levels, levels), max_size=10))
def test_constant_success_keeps_nothing_and_at_most_keep_of_a_problem_are_kept(make_labelled, make_rollout, batch):
    rollouts, answers = make_batch(make_labelled, make_rollout, batch)
    found = kept(MRTStar(keep=2).answer_weights(rollouts, answers))
    for group in range(3):
        assert sum(k for k, item in zip(found, batch, strict=True) if item[0] == group) <= 2
    for k, (_, reward, low, high) in zip(found, batch, strict=True):
        assert not k or (reward > 0 and high > low)


def test_whole_traces_are_not_trained(make_labelled):
    assert not np.any(MRTStar(keep=1).weights([make_labelled()])[0])
