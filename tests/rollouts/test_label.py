import numpy as np
import pytest

from mrt_pipeline.rollouts.label import label_rollouts
from mrt_pipeline.rollouts.prover import ExactProver, Success
from mrt_pipeline.rollouts.rollout import RolloutSettings, sample_rollouts


class KnownProver:
    """J = cut / 100, its error cut / 1000, at ten tokens a query."""

    name = "known"

    def __init__(self):
        self.queries = []

    def success(self, engine, queries, seed):
        self.queries += queries
        self.seed = seed
        return [Success(query.cuts / 100, query.cuts / 1000, 10) for query in queries]


@pytest.fixture
def traces(make_rollout, warm_policy):
    marker = next(iter(warm_policy.template.marker_ids))
    return [
        make_rollout(thought=thought) for thought in [(marker, 8, 9, marker, 8), (), (8, 9), (marker, marker, marker)]
    ]


def test_every_boundary_gets_its_own_value(traces, warm_policy):
    prover = KnownProver()
    labelled, n_tokens = label_rollouts(None, prover, warm_policy.template, traces, seed=7)
    assert [item.boundaries.tolist() for item in labelled] == [[0, 3, 5], [0], [0, 2], [0, 1, 2, 3]]
    for item, trace in zip(labelled, traces, strict=True):
        assert item.rollout is trace
        assert np.allclose(item.success, item.boundaries / 100)
        assert np.allclose(item.success_sem, item.boundaries / 1000)
    assert [item.at_cuts.tolist() for item in labelled] == [[]] * 4
    assert n_tokens == 40 and prover.seed == 7
    assert all(
        query.prompt is trace.prompt and query.thought is trace.thought and query.problem is trace.problem
        for query, trace in zip(prover.queries, traces, strict=True)
    )


def test_extra_cuts_leave_the_boundaries_alone(traces, warm_policy):
    prover, extra_cuts = KnownProver(), [[4, 1, 4], [0], [], [2, 3]]
    labelled, _ = label_rollouts(None, prover, warm_policy.template, traces, 0, extra_cuts)
    assert [item.boundaries.tolist() for item in labelled] == [[0, 3, 5], [0], [0, 2], [0, 1, 2, 3]]
    assert all(np.allclose(item.success, item.boundaries / 100) for item in labelled)
    assert [item.cuts.tolist() for item in labelled] == extra_cuts
    assert [(100 * item.at_cuts).round().astype(int).tolist() for item in labelled] == extra_cuts
    assert labelled[0].success_at(4) == 0.04 and labelled[0].success_at(3) == 0.03
    assert np.isnan(labelled[0].success_at(2))  # not asked for
    assert all(np.all(np.diff(query.cuts) > 0) for query in prover.queries)  # asked once each


def test_labels_are_what_the_prover_says_at_the_boundaries(warm_engine, warm_policy, task, known_problems):
    rollouts = sample_rollouts(
        warm_engine,
        task,
        warm_policy.tokenizer,
        warm_policy.template,
        known_problems,
        RolloutSettings(24, 6),
        4,
        seed=0,
        min_thinking=24,
    )
    prover = ExactProver(warm_policy.tokenizer, warm_policy.template)
    labelled, _ = label_rollouts(warm_engine, prover, warm_policy.template, rollouts, 0)
    extra, _ = label_rollouts(warm_engine, prover, warm_policy.template, rollouts, 0, [[0, 24]] * 8)
    assert max(len(item.boundaries) for item in labelled) > 2
    for item, other in zip(labelled, extra, strict=True):
        assert np.allclose(item.success, other.success, atol=1e-5)
        assert np.allclose(item.success[[0, -1]], other.at_cuts, atol=1e-5)


def test_no_rollouts_no_labels(warm_engine, warm_policy):
    prover = ExactProver(warm_policy.tokenizer, warm_policy.template)
    assert label_rollouts(warm_engine, prover, warm_policy.template, [], 0) == ([], 0)
