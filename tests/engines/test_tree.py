import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from mrt_pipeline.engines.tree import AnswerTree, pack_trees

token_lists = st.lists(st.integers(0, 3), max_size=4)
suffixes = st.lists(st.integers(0, 3), max_size=3)


def spelled(tree, node):
    """The tokens from the root to an inner node."""
    return tuple(tree.tokens[np.flatnonzero(tree.ancestors[node])])


@given(suffixes, st.lists(token_lists, max_size=6))
def test_the_edges_of_a_path_spell_its_continuation(suffix, continuations):
    tree = AnswerTree(suffix, continuations)
    suffix = suffix or [0]  # without one, the root stands for the last token before the cut
    for row, continuation in enumerate(continuations):
        edges = np.flatnonzero(tree.paths[row])
        contexts = [spelled(tree, tree.parents[edge]) for edge in edges]
        order = np.argsort([len(context) for context in contexts])
        assert [int(tree.tokens_scored[edge]) for edge in edges[order]] == continuation
        assert [contexts[i] for i in order] == [(*suffix, *continuation[:i]) for i in range(len(continuation))]


@given(suffixes, st.lists(token_lists, max_size=6))
def test_shared_prefixes_are_stored_once(suffix, continuations):
    tree = AnswerTree(suffix, continuations)
    prefixes = {tuple(c[:i]) for c in continuations for i in range(1, len(c) + 1)}
    with_children = {prefix[:-1] for prefix in prefixes if len(prefix) > 1}
    assert len(tree.parents) == len(prefixes)
    assert tree.size == max(1, len(suffix)) + len(with_children)


@given(suffixes, st.lists(token_lists, max_size=6))
def test_depth_counts_ancestors(suffix, continuations):
    tree = AnswerTree(suffix, continuations)
    assert tree.depth.tolist() == (tree.ancestors.sum(axis=1) - 1).tolist()


@given(
    st.lists(
        st.tuples(st.integers(1, 6), suffixes, st.lists(token_lists, min_size=1, max_size=3)), min_size=1, max_size=3
    ),
    st.data(),
)
def test_a_branch_sees_the_trace_up_to_its_cut_and_its_own_ancestors(rows, data):
    traces = [[10 + i for i in range(length)] for length, _, _ in rows]
    trees = [AnswerTree(suffix, continuations) for _, suffix, continuations in rows]
    cuts = [data.draw(st.lists(st.integers(1, len(trace)), max_size=3)) for trace in traces]
    ids, positions, mask, branch_columns = pack_trees(list(zip(traces, cuts, trees, strict=True)))
    first = ids.shape[1] - branch_columns
    for row, (trace, cut, tree) in enumerate(zip(traces, cuts, trees, strict=True)):
        for t in range(len(trace)):
            assert ids[row, t] == trace[t] and positions[row, t] == t
            assert np.flatnonzero(mask[row, t]).tolist() == list(range(t + 1))
        for k, length in enumerate(cut):
            for node in range(tree.size):
                column = first + k * tree.size + node
                seen = np.flatnonzero(mask[row, column])
                branch = spelled(tree, node)[1:] if tree.repeats_last else spelled(tree, node)
                expected = [*trace[:length], *branch]
                assert ids[row, seen].tolist() == expected
                assert positions[row, seen].tolist() == list(range(len(expected)))


def test_every_query_sees_something():
    tree = AnswerTree([1], [[2, 3]])
    mask = pack_trees([([1, 2, 3], [1, 2], tree), ([1], [1], tree)])[2]
    assert mask.any(axis=2).all()


@pytest.mark.parametrize("cut", [0, 4])
def test_cuts_must_lie_in_the_trace(cut):
    with pytest.raises(ValueError, match="cuts"):
        pack_trees([([1, 2, 3], [cut], AnswerTree([1], [[2]]))])
