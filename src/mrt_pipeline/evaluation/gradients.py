"""Gradients of many batches against each other: how noisy a credit is, and where it points.

All is computed from inner products. A gram matrix is (credits, batches, credits, batches), float64: the inner product
of every credit's gradient on every batch with every other. Batches are independent draws; the gradients of several
credits on one batch are not.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    import torch

MOST_KEPT = 2**20
"""Numbers that are kept of a gradient: 4 MiB."""
_PIECE = 2**24  # numbers that are sketched at once: what is drawn for them takes 128 MiB


def keep(gradient: Mapping[str, torch.Tensor], seed: int = 0) -> torch.Tensor:
    """A gradient in the host's memory, (d,) float32: all of it, or a sketch if it has more than MOST_KEPT numbers.

    The sketch adds each number, with a random sign, to a random one of the places (count sketch). Its inner products
    are those of the gradients in expectation; the standard error of a cosine is at most sqrt(2 / MOST_KEPT), .0014.
    seed: of places and signs; the same for gradients that are to be compared, which are on one device.
    """
    import torch

    tensors = [tensor.detach().flatten() for tensor in gradient.values()]
    if sum(map(len, tensors)) <= MOST_KEPT:
        return torch.cat([tensor.float().cpu() for tensor in tensors])
    device = tensors[0].device
    generator, sketch = torch.Generator(device).manual_seed(seed), torch.zeros(MOST_KEPT, device=device)
    for piece in (piece for tensor in tensors for piece in tensor.split(_PIECE)):
        drawn = torch.randint(2 * MOST_KEPT, piece.shape, generator=generator, device=device)
        sketch.index_add_(0, drawn // 2, piece.float() * (2 * (drawn % 2) - 1))
    return sketch.cpu()


def gram_matrix(gradients: Sequence[Sequence[torch.Tensor]]) -> np.ndarray:
    """Inner products of what was kept of each credit's gradient on each batch; see the module's docstring."""
    import torch

    n_credits, n_batches = len(gradients), len(gradients[0])
    rows = torch.stack([vector for batches in gradients for vector in batches])
    return (rows @ rows.T).numpy().astype(np.float64).reshape(n_credits, n_batches, n_credits, n_batches)


def leave_one_out(gram: np.ndarray, credit: int, other: int) -> np.ndarray:
    """Cosine of one batch's gradient with the mean gradient of `other` on all the other batches, (batches,).

    That mean knows nothing of the batch, so noise that they share does not look like agreement. It is of finitely many
    batches, so the cosine with the expected gradient is somewhat higher. NaN where one of the two is 0.
    """
    apart = 1.0 - np.eye(gram.shape[1])
    inner = (gram[credit, :, other] * apart).sum(axis=1)
    lengths = np.diag(gram[credit, :, credit]) * np.einsum("ij,jk,ik->i", apart, gram[other, :, other], apart)
    return np.divide(inner, np.sqrt(lengths.clip(0)), out=np.full(len(inner), np.nan), where=lengths > 0)


def direction(gram: np.ndarray, credit: int, other: int) -> tuple[float, float]:
    """Cosine of the expected gradients of two credits, and its standard error (jackknife over batches).

    Only products of different batches are taken, which are those of the expected gradients without the noise. NaN
    where there are so few batches that one of the two cannot be told from 0. May exceed 1 by its error.
    """
    n = gram.shape[1]
    value = _direction(gram, credit, other, np.ones(n))
    without = np.array([_direction(gram, credit, other, 1.0 - kept) for kept in np.eye(n)])
    return value, float(np.sqrt((n - 1) / n * np.sum((without - without.mean()) ** 2)))


def _direction(gram: np.ndarray, credit: int, other: int, kept: np.ndarray) -> float:
    """kept: (batches,) 1 for those that count, else 0."""
    pairs = np.outer(kept, kept) * (1 - np.eye(len(kept)))
    of_pairs = [(credit, other), (credit, credit), (other, other)]
    between, own, theirs = (float((gram[a, :, b] * pairs).sum()) for a, b in of_pairs)
    return between / np.sqrt(own * theirs) if own > 0 and theirs > 0 else np.nan
