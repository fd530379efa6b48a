"""Keys and values of what was sampled last, so that answers and J after a thought need not read it once more.

Only for small models, whose memory is small as well, and only as long as the weights are the very same.
"""

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

from mrt_pipeline.mrt.episodes import Tokens
from mrt_pipeline.policy.fused import FusedModel

MOST_WEIGHTS = 32_000_000
"""Of a model that is remembered: its weights are compared with those of before each time."""
MOST_BYTES = 256 * 1024**2
_MOST_NEW = 8  # tokens after what is known, fed one at a time


class Memory:
    """What is known of token sequences: keys and values (2, n_kv_heads, n_tokens, width) of each layer."""

    def __init__(self) -> None:
        self._weights: list[Tensor] = []
        self.clear()

    def clear(self) -> None:
        """Forget everything."""
        self._known: dict[bytes, list[Tensor]] = {}
        self._room = MOST_BYTES

    def begin(self, model: FusedModel) -> None:
        """What comes is of this model: forget what is of other weights."""
        weights = list(model.weights())
        if len(weights) != len(self._weights) or not all(map(torch.equal, weights, self._weights)):
            self.clear()
            small = sum(weight.numel() for weight in weights) <= MOST_WEIGHTS
            self._weights = [weight.clone() for weight in weights] if small else []

    def keep(self, tokens: Tokens, layers: list[Tensor]) -> None:
        """Remember a sequence, if there is room."""
        size = sum(layer.numel() * layer.element_size() for layer in layers)
        if self._weights and size <= self._room:
            self._room -= size
            self._known[_key(tokens)] = layers

    def find(self, sequences: Sequence[Tokens], new: bool) -> list[list[Tensor]] | None:
        """What is known of these sequences, or None if it is not all known.

        new: of each all but the last tokens, as many for all, at least one; otherwise of the whole of it.
        """
        if not self._known:
            return None
        found, n_new = [], int(new)
        for sequence in sequences:
            ids = np.asarray(sequence, dtype=np.int64)
            ends = range(len(ids) - int(new), max(0, len(ids) - _MOST_NEW) if new else len(ids) - 1, -1)
            here = next(((end, self._known[key]) for end in ends if (key := _key(ids[:end])) in self._known), None)
            if here is None:
                return None
            n_new = max(n_new, len(ids) - here[0])
            found.append(here[1])
        return [
            [layer[..., : len(ids) - n_new, :] for layer in layers]
            for ids, layers in zip(sequences, found, strict=True)
        ]


def _key(tokens: Tokens) -> bytes:
    return np.asarray(tokens, dtype=np.int64).tobytes()


def pad_rows(known: Sequence[Sequence[Tensor]], length: int) -> list[tuple[Tensor, Tensor]]:
    """Of each layer, keys and values (rows, n_kv_heads, length, width) of sequences that `Memory` knows."""
    padded = []
    for of_rows in zip(*known, strict=True):
        _, n_heads, _, width = of_rows[0].shape
        layer = of_rows[0].new_zeros(2, len(of_rows), n_heads, length, width)
        for i, row in enumerate(of_rows):
            layer[:, i, :, : row.shape[-2]] = row
        padded.append((layer[0], layer[1]))
    return padded
