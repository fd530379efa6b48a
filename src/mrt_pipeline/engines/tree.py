"""Packing many continuations of one trace into one sequence, with a tree-shaped attention mask.

The layout of a row is `[trace | padding | branches | padding]`. A branch is the suffix and the continuations merged
into a prefix tree, repeated for each cut; a branch token sees the trace up to its cut and its own ancestors, at the
position it would have if it stood there alone. The pass therefore gives the same log-probabilities as separate ones.
Without a suffix the first continuation token is predicted from the trace's own last token: it is fed once more, at its
own position, as the root of the branch, which sees what stands before it.
"""

from collections.abc import Sequence

import numpy as np

from mrt_pipeline.engines.base import check_cuts


class AnswerTree:
    """The suffix (a chain) followed by the prefix tree of the continuations.

    A leaf is scored from its parent and never fed to the model, so only inner nodes take room.

    repeats_last: the suffix is empty, so the root stands for the last token before the cut; its entry in `tokens` is
        filled in for each cut.
    size: number of inner nodes. tokens, depth: (size,). ancestors: bool (size, size), row sees column and itself.
    parents, tokens_scored: (m,) for each of the m edges of the tree, the inner node it leaves and the token it adds.
    paths: float (n_continuations, m), 1 where an edge lies on the continuation.
    """

    def __init__(self, suffix: Sequence[int], continuations: Sequence[Sequence[int]]):
        self.repeats_last = not len(suffix)
        tokens = list(suffix) or [0]  # of inner nodes
        last = len(tokens) - 1
        parent = list(range(-1, last))
        edges: dict[tuple[int, int], int] = {}  # (inner node, token added) -> edge
        inner: dict[int, int] = {}  # edge -> the inner node it leads to, where it leads to one
        routes = []
        for continuation in continuations:
            node, route = last, []
            for i, token in enumerate(map(int, continuation)):
                edge = edges.setdefault((node, token), len(edges))
                route.append(edge)
                if i + 1 < len(continuation):
                    if edge not in inner:
                        inner[edge] = len(tokens)
                        tokens.append(token)
                        parent.append(node)
                    node = inner[edge]
            routes.append(route)
        self.size = len(tokens)
        self.tokens = np.array(tokens, dtype=np.int64)
        self.depth = np.zeros(self.size, dtype=np.int64)
        self.ancestors = np.eye(self.size, dtype=bool)
        for node in range(1, self.size):  # parents come before their children
            self.depth[node] = self.depth[parent[node]] + 1
            self.ancestors[node] |= self.ancestors[parent[node]]
        self.parents = np.array([node for node, _ in edges], dtype=np.int64)
        self.tokens_scored = np.array([token for _, token in edges], dtype=np.int64)
        self.paths = np.zeros((len(routes), len(edges)))
        for i, route in enumerate(routes):
            self.paths[i, route] = 1.0


def pack_trees(
    traces: Sequence[Sequence[int]], cuts: Sequence[Sequence[int]], trees: Sequence[AnswerTree]
) -> tuple[np.ndarray, np.ndarray, np.ndarray, int]:
    """Pack a batch of traces with their branches.

    Returns token ids and positions, int64 (rows, length); the mask, bool (rows, length, length), True where a query
    (second axis) sees a key (third axis); and the number of columns, at the end, that hold branches: branch token t of
    the k-th cut of row i is column `k * trees[i].size + t` of these.
    """
    trace_columns = max(len(trace) for trace in traces)
    branch_columns = max(len(cut) * tree.size for cut, tree in zip(cuts, trees, strict=True))
    rows, length = len(traces), trace_columns + branch_columns
    ids = np.zeros((rows, length), dtype=np.int64)
    positions = np.zeros((rows, length), dtype=np.int64)
    mask = np.zeros((rows, length, length), dtype=bool)
    mask[:, np.arange(length), np.arange(length)] = True  # padding must see something
    causal = np.tril(np.ones((trace_columns, trace_columns), dtype=bool))
    positions[:, :trace_columns] = np.arange(trace_columns)
    mask[:, :trace_columns, :trace_columns] = causal
    for row, (trace, cut, tree) in enumerate(zip(traces, cuts, trees, strict=True)):
        check_cuts(trace, cut)
        cut = np.asarray(cut, dtype=np.int64)
        ids[row, : len(trace)] = trace
        used = slice(trace_columns, trace_columns + len(cut) * tree.size)
        tokens, start = np.tile(tree.tokens, (len(cut), 1)), cut
        if tree.repeats_last:
            start = cut - 1
            tokens[:, 0] = np.asarray(trace, dtype=np.int64)[start]
        ids[row, used] = tokens.ravel()
        positions[row, used] = (start[:, None] + tree.depth).ravel()
        visible = np.arange(trace_columns) < np.repeat(start, tree.size)[:, None]
        mask[row, used, :trace_columns] = visible
        mask[row, used, used] = np.kron(np.eye(len(cut), dtype=bool), tree.ancestors)
    return ids, positions, mask, branch_columns
