"""The embedded engine: plain torch on the policy itself, with a preallocated key-value cache."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from inspect import signature
from typing import TYPE_CHECKING

import numpy as np
import torch
from transformers import LlamaForCausalLM
from transformers.cache_utils import Cache, DynamicLayer

from mrt_pipeline.bars import bar
from mrt_pipeline.engines.base import Completion, Row, SamplingParams
from mrt_pipeline.engines.tree import AnswerTree, pack_trees
from mrt_pipeline.mrt.episodes import Tokens

if TYPE_CHECKING:
    from mrt_pipeline.policy.language_model import Model

# Later releases of transformers call a model's argument `cache` and take the old name until 5.40; vLLM 0.32 needs 5.19.
_CACHE = "cache" if "cache" in signature(LlamaForCausalLM.forward).parameters else "past_key_values"
_COMPACT_BELOW = 0.75  # drop finished rows from the batch when fewer than this share is still running


class _PreallocatedLayer(DynamicLayer):
    """A cache layer whose memory is taken once; attention sees only the part filled so far.

    transformers' own one copies everything for each token, so that sampling takes two to four times as long.
    """

    def __init__(self, max_length: int):
        super().__init__()
        self._max_length = max_length

    def lazy_initialization(self, key_states: torch.Tensor, value_states: torch.Tensor) -> None:
        super().lazy_initialization(key_states, value_states)
        self._keys, self._values = (
            states.new_empty(*states.shape[:2], self._max_length, states.shape[-1])
            for states in (key_states, value_states)
        )

    def update(self, key_states: torch.Tensor, value_states: torch.Tensor, *args, **kwargs):
        if not self.is_initialized:
            self.lazy_initialization(key_states, value_states)
        start = self.get_seq_length()
        end = start + key_states.shape[-2]
        self._keys[:, :, start:end] = key_states
        self._values[:, :, start:end] = value_states
        self.keys, self.values = self._keys[:, :, :end], self._values[:, :, :end]
        return self.keys, self.values

    def batch_select_indices(self, indices: torch.Tensor) -> None:
        self._keys, self._values = self._keys[indices], self._values[indices]


class TorchEngine:
    """Samples and scores with the very module that is trained, so its weights are always the current ones.

    model: a transformers causal language model. batch_size: rows sampled at once.
    score_tokens: most tokens of one scoring pass (rows times padded length).
    """

    shares_weights = True

    def __init__(self, model: Model, batch_size: int = 256, score_tokens: int = 4_096):
        self.model, self.batch_size, self.score_tokens = model, batch_size, score_tokens

    def update_weights(self) -> None:
        """Nothing to do: the weights are shared with the trainer."""

    def sample(
        self,
        prompts: Sequence[Tokens],
        params: SamplingParams,
        seed: int,
        min_tokens: int | Tokens = 0,
        max_tokens: Tokens | None = None,
    ) -> list[Completion]:
        """See `Engine.sample`."""
        rows = params.rows(len(prompts), min_tokens, max_tokens)
        generator = torch.Generator(self.model.device).manual_seed(seed)
        size = max(1, self.batch_size // params.n)
        with _at_rest(self.model):
            for start in bar(range(0, len(prompts), size), desc="sampling", unit="batch"):
                batch = slice(start * params.n, (start + size) * params.n)
                self._sample_batch(prompts[start : start + size], rows[batch], params, generator)
        return [row.completion() for row in rows]

    def _sample_batch(
        self, prompts: Sequence[Tokens], rows: list[Row], params: SamplingParams, generator: torch.Generator
    ) -> None:
        device = self.model.device
        lengths = torch.tensor([len(prompt) for prompt in prompts], device=device)
        longest = int(lengths.max())
        ids = torch.zeros(len(prompts), longest, dtype=torch.long)
        for i, prompt in enumerate(prompts):  # padded on the left: all rows go on from the same column
            ids[i, longest - len(prompt) :] = torch.as_tensor(prompt, dtype=torch.long)
        padding = longest - lengths
        cache = Cache(
            layers=[_PreallocatedLayer(longest + params.max_tokens) for _ in range(self.model.config.num_hidden_layers)]
        )

        def next_logits(ids: torch.Tensor, mask: torch.Tensor | None, positions: torch.Tensor) -> torch.Tensor:
            return self.model(
                input_ids=ids,
                attention_mask=mask,
                position_ids=positions,
                use_cache=True,
                logits_to_keep=1,
                **{_CACHE: cache},
            ).logits[:, -1]

        columns = torch.arange(longest, device=device)
        mask = None
        if padding.any():
            seen = (columns[:, None] >= columns) & (columns >= padding[:, None])[:, None]
            mask = (seen | torch.eye(longest, dtype=torch.bool, device=device))[:, None]  # padding must see something
        logits = next_logits(ids.to(device), mask, (columns - padding[:, None]).clamp(min=0))

        copies = torch.arange(len(prompts), device=device).repeat_interleave(params.n)
        cache.batch_select_indices(copies)
        padding, logits = padding[copies], logits[copies]
        for step in bar(range(params.max_tokens + 1), desc="tokens", unit="token"):
            tokens, logprobs = (drawn.tolist() for drawn in _draw(logits, params.temperature, generator))
            for i, row in enumerate(rows):
                if len(row.tokens) == step and not row.ended:  # otherwise an extension's tokens come next
                    row.take(tokens[i], logprobs[i])
                if len(row.tokens) > step:
                    tokens[i] = row.tokens[step]
            kept = [i for i, row in enumerate(rows) if row.stop_token_id is None and step < row.most]
            if not kept:
                break
            if len(kept) < _COMPACT_BELOW * len(rows):
                rows, tokens = [rows[i] for i in kept], [tokens[i] for i in kept]
                chosen = torch.tensor(kept, device=device)
                padding = padding[chosen]
                cache.batch_select_indices(chosen)
            length = longest + step + 1
            mask = (torch.arange(length, device=device) >= padding[:, None])[:, None, None] if padding.any() else None
            logits = next_logits(torch.tensor(tokens, device=device)[:, None], mask, (length - 1 - padding)[:, None])

    def score(
        self,
        traces: Sequence[Tokens],
        cuts: Sequence[Tokens],
        suffix: Tokens,
        continuations: Sequence[Sequence[Tokens]],
        temperature: float = 1.0,
    ) -> list[np.ndarray]:
        """See `Engine.score`. All branches of a trace share it in one pass, under a tree-shaped attention mask."""
        trees = [AnswerTree(suffix, answers) for answers in continuations]
        sizes = [len(trace) + len(cut) * tree.size for trace, cut, tree in zip(traces, cuts, trees, strict=True)]
        results: list[np.ndarray] = [np.empty(0)] * len(traces)
        order = sorted(range(len(traces)), key=sizes.__getitem__, reverse=True)
        scored_traces = bar(total=len(traces), desc="scoring", unit="trace")
        while order:
            rows, trace_columns, branch_columns = 0, 0, 0
            for i in order:
                trace_columns = max(trace_columns, len(traces[i]))
                branch_columns = max(branch_columns, len(cuts[i]) * trees[i].size)
                if rows and (rows + 1) * (trace_columns + branch_columns) > self.score_tokens:
                    break
                rows += 1
            batch, order = order[:rows], order[rows:]
            *packed, n_columns = pack_trees(
                [traces[i] for i in batch], [cuts[i] for i in batch], [trees[i] for i in batch]
            )
            ids, positions, mask = (torch.from_numpy(array).to(self.model.device) for array in packed)
            with _at_rest(self.model):
                logits = self.model(
                    input_ids=ids,
                    position_ids=positions,
                    attention_mask=mask[:, None],
                    use_cache=False,
                    logits_to_keep=n_columns,
                ).logits
                logprobs = torch.log_softmax(logits.float() / temperature, dim=-1)
            for row, i in enumerate(batch):
                tree, n_cuts = trees[i], len(cuts[i])
                branches = logprobs[row, : n_cuts * tree.size].reshape(n_cuts, tree.size, logprobs.shape[-1])
                scored = branches[:, tree.parents, tree.tokens_scored].double().cpu().numpy()
                results[i] = scored @ tree.paths.T
            scored_traces.update(rows)
        scored_traces.close()
        return results


@contextmanager
def _at_rest(model: Model) -> Iterator[None]:
    """Without gradients and dropout; the model's mode is left as it was."""
    was_training = model.training
    model.eval()
    try:
        with torch.inference_mode():
            yield
    finally:
        model.train(was_training)


def _draw(logits: torch.Tensor, temperature: float, generator: torch.Generator) -> tuple[torch.Tensor, torch.Tensor]:
    """One token for each row of logits, and its log-probability; the most probable one at temperature 0."""
    logprobs = torch.log_softmax(logits.float() / (temperature or 1.0), dim=-1)
    scores = logprobs
    if temperature > 0:  # the Gumbel trick
        scores = logprobs - torch.empty_like(logprobs).exponential_(generator=generator).log_()
    tokens = scores.argmax(dim=-1)
    return tokens, logprobs.gather(1, tokens[:, None])[:, 0]
