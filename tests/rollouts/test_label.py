import numpy as np
import pytest

from mrt_pipeline.rollouts.label import label_rollouts
from mrt_pipeline.rollouts.prover import ExactProver, Success


class KnownProver:
    """J = cut / 100, its error cut / 1000, at ten tokens a query."""

    name = "known"

    def __init__(self):
        self.queries = []

    def success(self, actor, queries, seed):
        self.queries += queries
        self.seed = seed
        return [Success(query.cuts / 100, query.cuts / 1000, 10) for query in queries]


@pytest.fixture
def traces(make_rollout, warm_policy):
    template = warm_policy.template
    marker = next(iter(template.marker_ids))
    thoughts = [(marker, 8, 9, marker, 8), (), (8, 9), (marker, marker, marker)]
    return [make_rollout(thought=thought, template=template) for thought in thoughts]


def test_every_boundary_gets_its_own_value(traces, warm_actor):
    prover = KnownProver()
    labelled = label_rollouts(warm_actor, prover, traces, seed=7)
    assert [item.boundaries.tolist() for item in labelled] == [[0, 3, 5], [0], [0, 2], [0, 1, 2, 3]]
    for item, trace in zip(labelled, traces, strict=True):
        assert item.rollout is trace
        assert np.allclose(item.success, item.boundaries / 100)
        assert np.allclose(item.success_sem, item.boundaries / 1000)
    assert [item.at_cuts.tolist() for item in labelled] == [[]] * 4
    assert [item.prover_tokens for item in labelled] == [10] * 4 and prover.seed == 7
    assert all(
        query.prompt is trace.prompt and query.thought is trace.thought and query.problem is trace.problem
        for query, trace in zip(prover.queries, traces, strict=True)
    )


def test_extra_cuts_leave_the_boundaries_alone(traces, warm_actor):
    prover, extra_cuts = KnownProver(), [[4, 1, 4], [0], [], [2, 3]]
    labelled = label_rollouts(warm_actor, prover, traces, 0, extra_cuts)
    assert [item.boundaries.tolist() for item in labelled] == [[0, 3, 5], [0], [0, 2], [0, 1, 2, 3]]
    assert all(np.allclose(item.success, item.boundaries / 100) for item in labelled)
    assert [item.cuts.tolist() for item in labelled] == extra_cuts
    assert [(100 * item.at_cuts).round().astype(int).tolist() for item in labelled] == extra_cuts
    assert labelled[0].success_at(4) == 0.04 and labelled[0].success_at(3) == 0.03
    assert np.isnan(labelled[0].success_at(2))  # not asked for
    assert all(np.all(np.diff(query.cuts) > 0) for query in prover.queries)  # asked once each


def test_labels_are_what_the_prover_says_at_the_boundaries(warm_actor, known_problems):
    rollouts = warm_actor.sample(known_problems, 4, seed=0, min_thinking=24)
    labelled = label_rollouts(warm_actor, ExactProver(), rollouts, 0)
    extra = label_rollouts(warm_actor, ExactProver(), rollouts, 0, [[0, 24]] * 8)
    assert max(len(item.boundaries) for item in labelled) > 2
    for item, other in zip(labelled, extra, strict=True):
        assert np.allclose(item.success, other.success, atol=1e-5)
        assert np.allclose(item.success[[0, -1]], other.at_cuts, atol=1e-5)


def test_no_rollouts_no_labels(warm_actor):
    assert label_rollouts(warm_actor, ExactProver(), [], 0) == []


def test_the_natural_end_is_a_boundary_where_it_is_asked_for(make_rollout, warm_actor):
    """Wherever the template sees an episode end: where it was turned from stopping the policy was done, too."""
    template = warm_actor.template
    marker = next(iter(template.marker_ids))
    closed = (template.close_ids[0],)
    turned = make_rollout((marker, 8, 9, 8, 8, 9), natural_length=3, natural_close=closed, template=template)
    ended = make_rollout((8, 9), template=template, natural_close=closed)
    prover = KnownProver()
    labelled = label_rollouts(warm_actor, prover, [turned, ended], 0, [[2], []], at_natural_end=True)
    assert [item.boundaries.tolist() for item in labelled] == [[0, 3, 6], [0, 2]]
    assert [query.cuts.tolist() for query in prover.queries] == [[0, 2, 3, 6], [0, 2]]
    assert [query.forced.tolist() for query in prover.queries] == [[True, True, False, True], [True, False]]
    assert labelled[0].success_at(3) == 0.03 and labelled[0].at_cuts.tolist() == [0.02]


def test_without_the_boundaries_j_is_asked_for_at_the_cuts_alone(traces, warm_actor):
    prover = KnownProver()
    labelled = label_rollouts(warm_actor, prover, traces, 0, [[4], [], [1], []], at_boundaries=False)
    assert [query.cuts.tolist() for query in prover.queries] == [[4], [1]]
    assert [item.prover_tokens for item in labelled] == [10, 0, 10, 0]
    assert all(len(item.success) == len(item.success_sem) == 0 for item in labelled)
    assert [item.boundaries.tolist() for item in labelled] == [trace.boundaries.tolist() for trace in traces]
    assert [item.at_cuts.tolist() for item in labelled] == [[0.04], [], [0.01], []]
