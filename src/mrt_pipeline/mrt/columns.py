"""What is given of the rollouts of a batch, as arrays of the right kind and shape; ValueError for what does not fit."""

from collections.abc import Sequence

import numpy as np
from numpy.typing import ArrayLike

_COUNTS = {"lengths", "prefix_lengths", "next_ends", "n_stop"}
_FLAGS = {"answered", "direct", "cut", "ends_trace"}


def as_columns(n: int | None = None, /, **given: ArrayLike) -> list[np.ndarray]:
    """Copies of what is given of `n` rollouts (None: as many as the first column has), of the kind the name says."""
    columns = []
    for name, values in given.items():
        column = np.asarray(values)
        if n is not None and column.ndim == 0:
            column = np.full(n, column)
        if column.ndim != 1 or n not in (None, len(column)):
            raise ValueError(f"{name} has shape {column.shape}; expected ({n or 'n'},): one for each rollout")
        n = len(column)
        if name in _COUNTS and not np.all((column >= 0) & (column == np.floor(column))):
            raise ValueError(f"{name} must be numbers of tokens, got {column.tolist()}")
        kind = np.int64 if name in _COUNTS else bool if name in _FLAGS else np.float64
        columns.append(column if name == "groups" else column.astype(kind))
    return columns


def as_curves(
    boundaries: Sequence[ArrayLike], success: Sequence[ArrayLike], n: int
) -> tuple[list[np.ndarray], list[np.ndarray]]:
    """Thinking tokens at the boundaries of each of `n` rollouts, and J there: n arrays (k_i + 1,) each."""
    tokens, curves = [np.asarray(b) for b in boundaries], [np.asarray(j, dtype=np.float64) for j in success]
    if not len(tokens) == len(curves) == n:
        raise ValueError(f"boundaries are of {len(tokens)} rollouts, success is of {len(curves)}; expected {n} of both")
    for i, (b, j) in enumerate(zip(tokens, curves, strict=True)):
        if b.ndim != 1 or b.shape != j.shape:
            raise ValueError(f"rollout {i} has boundaries {b.shape} and success {j.shape}; expected J at each boundary")
        if not len(b) or b[0] != 0 or np.any(np.diff(b) <= 0):
            raise ValueError(f"boundaries of rollout {i} must begin with 0 and increase, got {b.tolist()}")
    return [b.astype(np.int64) for b in tokens], curves


def check_budget(budget: ArrayLike) -> None:
    """One budget or several, in thinking tokens: all positive."""
    if not np.size(budget) or np.any(~(np.asarray(budget) > 0)):
        raise ValueError(f"budget must be positive, got {np.asarray(budget).tolist()}")


def members_of(groups: np.ndarray) -> list[np.ndarray]:
    """The rollouts of each group."""
    return [np.flatnonzero(groups == group) for group in np.unique(groups)]
