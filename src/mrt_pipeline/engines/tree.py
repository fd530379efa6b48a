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
from mrt_pipeline.mrt.episodes import Tokens


class AnswerTree:
    """The suffix (a chain) followed by the prefix tree of the continuations.

    A leaf is scored from its parent and never fed to the model, so only inner nodes take room.

    repeats_last: the suffix is empty, so the root stands for the last token before the cut; its entry in `tokens` is
        filled in for each cut.
    size: number of inner nodes. tokens, depth: (size,). ancestors: bool (size, size), row sees column and itself.
    parents, tokens_scored: (m,) for each of the m edges of the tree, the inner node it leaves and the token it adds.
    paths: float (n_continuations, m), 1 where an edge lies on the continuation.
    """

    def __init__(self, suffix: Tokens, continuations: Sequence[Tokens]):
        self.repeats_last = not len(suffix)
        tokens = list(suffix) or [0]  # of inner nodes
        parent = list(range(-1, len(tokens) - 1))
        answers = [tuple(map(int, continuation)) for continuation in continuations]
        inner: dict[tuple[int, ...], int] = {(): len(tokens) - 1}  # beginning of a continuation -> its last node
        edges: dict[tuple[int, ...], int] = {}  # beginning of a continuation -> the edge that ends it
        for answer in answers:
            for end in range(1, len(answer) + 1):
                edges.setdefault(answer[:end], len(edges))
                if end < len(answer) and answer[:end] not in inner:
                    inner[answer[:end]] = len(tokens)
                    tokens.append(answer[end - 1])
                    parent.append(inner[answer[: end - 1]])
        self.size = len(tokens)
        self.tokens = np.array(tokens, dtype=np.int64)
        self.ancestors = np.eye(self.size, dtype=bool)
        for node in range(1, self.size):  # parents come before their children
            self.ancestors[node] |= self.ancestors[parent[node]]
        self.depth = self.ancestors.sum(axis=1) - 1
        self.parents = np.array([inner[edge[:-1]] for edge in edges], dtype=np.int64)
        self.tokens_scored = np.array([edge[-1] for edge in edges], dtype=np.int64)
        self.paths = np.zeros((len(answers), len(edges)))
        for row, answer in enumerate(answers):
            self.paths[row, [edges[answer[:end]] for end in range(1, len(answer) + 1)]] = 1.0


def pack_trees(batch: Sequence[tuple[Tokens, Tokens, AnswerTree]]) -> tuple[np.ndarray, np.ndarray, np.ndarray, int]:
    """Pack traces, each with its cuts and the tree that is repeated for them.

    Returns token ids and positions, int64 (rows, length); the mask, bool (rows, length, length), True where a query
    (second axis) sees a key (third axis); and the number of columns, at the end, that hold branches: branch token t of
    the k-th cut of row i is column `k * tree.size + t` of these.
    """
    trace_columns = max(len(trace) for trace, _, _ in batch)
    branch_columns = max(len(cut) * tree.size for _, cut, tree in batch)
    rows, length = len(batch), trace_columns + branch_columns
    ids, positions = np.zeros((2, rows, length), dtype=np.int64)
    mask = np.repeat(np.eye(length, dtype=bool)[None], rows, axis=0)  # padding must see something
    positions[:, :trace_columns] = np.arange(trace_columns)
    mask[:, :trace_columns, :trace_columns] = np.tri(trace_columns, dtype=bool)  # causal
    for row, (trace, cut, tree) in enumerate(batch):
        check_cuts(trace, cut)
        start = np.asarray(cut, dtype=np.int64)
        ids[row, : len(trace)] = trace
        used = slice(trace_columns, trace_columns + len(cut) * tree.size)
        tokens = np.tile(tree.tokens, (len(cut), 1))
        if tree.repeats_last:
            start = start - 1
            tokens[:, 0] = np.asarray(trace, dtype=np.int64)[start]
        ids[row, used] = tokens.ravel()
        positions[row, used] = (start[:, None] + tree.depth).ravel()
        mask[row, used, :trace_columns] = np.arange(trace_columns) < np.repeat(start, tree.size)[:, None]
        mask[row, used, used] = np.kron(np.eye(len(cut), dtype=bool), tree.ancestors)
    return ids, positions, mask, branch_columns
