"""What sampling asks of a model: logits after the prompts, and then after one more token of each row.

`PlainDecoder` runs any causal language model of transformers. `FusedDecoder` computes the same with `policy/fused.py`.
Both take memory for keys and values once: transformers' own cache copies everything for each token.
"""

from collections.abc import Sequence
from inspect import signature
from typing import Protocol

import torch
from torch import Tensor
from transformers import LlamaForCausalLM
from transformers.cache_utils import Cache, DynamicLayer

from mrt_pipeline.policy.fused import FusedModel, in_rows

# Later releases of transformers call a model's argument `cache` and take the old name until 5.40; vLLM 0.32 needs 5.19.
_CACHE = "cache" if "cache" in signature(LlamaForCausalLM.forward).parameters else "past_key_values"


class Decoder(Protocol):
    """Rows of tokens that grow by one at a time."""

    def start(self, ids: Tensor, padding: Tensor) -> Tensor:
        """Logits (rows, n_symbols) after prompts, ids (rows, length), of which `padding` (rows,) tokens are none."""
        ...

    def select(self, rows: Tensor) -> None:
        """Go on with these rows; a row may be there several times."""
        ...

    def step(self, tokens: Tensor) -> Tensor:
        """Logits (rows, n_symbols) after one more token (rows,) of each row."""
        ...


def _seen_by_prompts(length: int, padding: Tensor) -> Tensor | None:
    """Bool (rows, 1, length, length): which columns each sees; None without padding, when it is what stands before."""
    if not padding.any():
        return None
    columns = torch.arange(length, device=padding.device)
    seen = (columns[:, None] >= columns) & (columns >= padding[:, None])[:, None]
    return (seen | torch.eye(length, dtype=torch.bool, device=padding.device))[:, None]  # padding must see something


def _prompt_positions(length: int, padding: Tensor) -> Tensor:
    """(rows, length), from 0 on where the padding ends."""
    return (torch.arange(length, device=padding.device) - padding[:, None]).clamp(min=0)


class _PreallocatedLayer(DynamicLayer):
    """A cache layer whose memory is taken once; attention sees only the part filled so far."""

    def __init__(self, max_length: int):
        super().__init__()
        self._max_length = max_length

    def lazy_initialization(self, key_states: Tensor, value_states: Tensor) -> None:
        super().lazy_initialization(key_states, value_states)
        self._keys, self._values = (
            states.new_empty(*states.shape[:2], self._max_length, states.shape[-1])
            for states in (key_states, value_states)
        )

    def update(self, key_states: Tensor, value_states: Tensor, *args, **kwargs):
        if not self.is_initialized:
            self.lazy_initialization(key_states, value_states)
        start = self.get_seq_length()
        end = start + key_states.shape[-2]
        self._keys[:, :, start:end] = key_states
        self._values[:, :, start:end] = value_states
        self.keys, self.values = self._keys[:, :, :end], self._values[:, :, :end]
        return self.keys, self.values

    def batch_select_indices(self, indices: Tensor) -> None:
        self._keys, self._values = self._keys[indices], self._values[indices]


class PlainDecoder:
    """See `Decoder`. room: most tokens that come after the prompts."""

    def __init__(self, model, room: int):
        self._model, self._room = model, room

    def start(self, ids: Tensor, padding: Tensor) -> Tensor:
        """See `Decoder`."""
        self._length, self._padding = ids.shape[1], padding
        n_layers = self._model.config.num_hidden_layers
        self._cache = Cache(layers=[_PreallocatedLayer(self._length + self._room) for _ in range(n_layers)])
        return self._logits(ids, _seen_by_prompts(self._length, padding), _prompt_positions(self._length, padding))

    def select(self, rows: Tensor) -> None:
        """See `Decoder`."""
        self._padding = self._padding[rows]
        self._cache.batch_select_indices(rows)

    def step(self, tokens: Tensor) -> Tensor:
        """See `Decoder`."""
        self._length += 1
        mask, padding = None, self._padding[:, None]
        if padding.any():
            mask = (torch.arange(self._length, device=tokens.device) >= padding)[:, None, None]
        return self._logits(tokens[:, None], mask, self._length - 1 - padding)

    def _logits(self, ids: Tensor, mask: Tensor | None, positions: Tensor) -> Tensor:
        given = {"input_ids": ids, "attention_mask": mask, "position_ids": positions, _CACHE: self._cache}
        return self._model(**given, use_cache=True, logits_to_keep=1).logits[:, -1]


class FusedDecoder:
    """See `Decoder`. room: most tokens that come after the prompts."""

    def __init__(self, model: FusedModel, room: int):
        self._model, self._room = model, room

    def start(self, ids: Tensor, padding: Tensor) -> Tensor:
        """See `Decoder`."""
        model, (rows, length) = self._model, ids.shape
        self._take_room(rows, length, padding)
        among_prompts = in_rows((rows, length), _seen_by_prompts(length, padding))

        def attend(layer: int, queries: Tensor, keys: Tensor, values: Tensor) -> Tensor:
            for kept, new in zip(self._cache[layer], (keys, values), strict=True):
                kept[:, :, :length] = new.unflatten(0, (rows, length)).transpose(1, 2)
            return among_prompts(layer, queries, keys, values)

        hidden = model.hidden(ids.flatten(), _prompt_positions(length, padding).flatten(), attend)
        return model.logits(hidden.view(rows, length, -1)[:, -1])

    def resume(self, known: Sequence[Sequence[Tensor]], ids: Tensor) -> Tensor:
        """Logits after what is known of each row (`Memory`), and the tokens (rows, length) that follow it."""
        lengths = [row[0].shape[-2] for row in known]
        length = max(lengths)
        padding = torch.tensor([length - n for n in lengths], device=ids.device)
        self._take_room(len(known), length, padding, ids.shape[1])
        for i, row in enumerate(known):
            first = length - lengths[i]
            for layer, of_row in zip(self._cache, row, strict=True):
                layer[:, i, :, :first] = 0  # masked, but what is no number would be none even then
                layer[:, i, :, first:length] = of_row
        for tokens in ids.T:
            logits = self.step(tokens)
        return logits

    def known(self, row: int, n_tokens: int) -> list[Tensor]:
        """Keys and values (2, n_kv_heads, n_tokens, width) of each layer for the first tokens of a row."""
        first = int(self._padding[row])
        return [layer[:, row, :, first : first + n_tokens] for layer in self._cache]

    def _take_room(self, rows: int, length: int, padding: Tensor, more: int = 0) -> None:
        model = self._model
        shape = (2, rows, model.n_kv_heads, length + more + self._room, model.width)
        self._length, self._padding = length, padding
        self._cache = [torch.empty(shape, device=padding.device) for _ in range(model.n_layers)]

    def select(self, rows: Tensor) -> None:
        """See `Decoder`."""
        self._padding = self._padding[rows]
        self._cache = [layer[:, rows] for layer in self._cache]

    def step(self, tokens: Tensor) -> Tensor:
        """See `Decoder`. One query a row: products of matrices are faster than a kernel for many."""
        model, rows, here, padding = self._model, len(tokens), self._length, self._padding[:, None]
        self._length += 1
        hidden_columns = None
        if padding.any():
            hidden_columns = (torch.arange(self._length, device=tokens.device) < padding)[:, None, None]
        per_kv_head = (rows, model.n_kv_heads, -1, model.width)

        def attend(layer: int, queries: Tensor, keys: Tensor, values: Tensor) -> Tensor:
            cache = self._cache[layer]
            cache[0, :, :, here], cache[1, :, :, here] = keys, values
            all_keys, all_values = cache[:, :, :, : self._length]
            scores = queries.view(per_kv_head) @ all_keys.transpose(-1, -2)
            if hidden_columns is not None:
                scores.masked_fill_(hidden_columns, float("-inf"))
            return (scores.softmax(dim=-1) @ all_values).view_as(queries)

        return model.logits(model.hidden(tokens, here - self._padding, attend))
