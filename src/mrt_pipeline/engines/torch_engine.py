"""The embedded engine: torch on the policy itself, sampling with a preallocated key-value cache, scoring by trees."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from functools import cache
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor
from torch.nn.utils.rnn import pad_sequence

from mrt_pipeline.bars import bar
from mrt_pipeline.engines.base import Completion, Row, SamplingParams
from mrt_pipeline.engines.decoding import Decoder, FusedDecoder, PlainDecoder
from mrt_pipeline.engines.memory import Memory, pad_rows
from mrt_pipeline.engines.tree import AnswerTree, pack_trees
from mrt_pipeline.mrt.episodes import Tokens
from mrt_pipeline.policy.fused import FusedModel, in_rows

if TYPE_CHECKING:
    from mrt_pipeline.policy.policy import Model

_COMPACT_BELOW = 0.75  # drop finished rows from the batch when fewer than this share is still running


class TorchEngine:
    """Samples and scores with the very module that is trained, so its weights are always the current ones.

    model: a transformers causal language model. The rest: as in `TorchEngineParams`.
    """

    shares_weights = True

    def __init__(self, model: Model, batch_size: int = 256, score_tokens: int = 4_096):
        self.model, self.batch_size, self.score_tokens = model, batch_size, score_tokens
        self._memory = Memory()

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
            fused = self._fused()
            if not self._memory.find(prompts[:1], new=True):
                self._memory.clear()  # what comes now is not about what was sampled before
            for start in bar(range(0, len(prompts), size), desc="sampling", unit="batch"):
                batch = slice(start * params.n, (start + size) * params.n)
                self._sample_batch(fused, prompts[start : start + size], rows[batch], params, generator)
        return [row.completion() for row in rows]

    def _sample_batch(
        self,
        fused: FusedModel | None,
        prompts: Sequence[Tokens],
        rows: list[Row],
        params: SamplingParams,
        generator: torch.Generator,
    ) -> None:
        device = self.model.device
        rows_of_ids = [torch.as_tensor(prompt, dtype=torch.long) for prompt in prompts]
        ids = pad_sequence(rows_of_ids, batch_first=True, padding_side="left")  # all go on from the same column
        padding = torch.tensor([ids.shape[1] - len(prompt) for prompt in prompts])
        known = self._memory.find(prompts, new=True) if fused else None
        decoder: Decoder
        decoder = FusedDecoder(fused, params.max_tokens) if fused else PlainDecoder(self.model, params.max_tokens)
        if known and isinstance(decoder, FusedDecoder):
            new = ids[:, max(row[0].shape[-2] for row in known) :]  # what is known ends at the same column in all rows
            logits = decoder.resume(known, new.to(device))
        else:
            logits = decoder.start(ids.to(device), padding.to(device))
        copies = torch.arange(len(prompts), device=device).repeat_interleave(params.n)
        decoder.select(copies)
        logits = logits[copies]
        contexts = [prompt for prompt in prompts for _ in range(params.n)]

        def remember(ready: Iterable[int], copied: bool) -> None:
            if isinstance(decoder, FusedDecoder) and not known:
                for i in ready:
                    seen = [*contexts[i], *rows[i].tokens]
                    layers = decoder.known(i, len(seen))
                    self._memory.keep(seen, [layer.clone() for layer in layers] if copied else layers)

        for step in bar(range(params.max_tokens + 1), desc="tokens", unit="token"):
            tokens, logprobs = (drawn.tolist() for drawn in _draw(logits, params.temperature, generator))
            for i, row in enumerate(rows):
                if len(row.tokens) == step and not row.ended:  # otherwise an extension's tokens come next
                    row.take(tokens[i], logprobs[i])
                if len(row.tokens) > step:
                    tokens[i] = row.tokens[step]
            kept = [i for i, row in enumerate(rows) if row.stop_token_id is None and step < row.most]
            if not kept:
                remember(range(len(rows)), copied=False)
                break
            if len(kept) < _COMPACT_BELOW * len(rows):
                remember(sorted({*range(len(rows))} - {*kept}), copied=True)  # the decoder drops them
                rows, contexts = [rows[i] for i in kept], [contexts[i] for i in kept]
                tokens = [tokens[i] for i in kept]
                decoder.select(torch.tensor(kept, device=device))
            logits = decoder.step(torch.tensor(tokens, device=device))

    def score(
        self,
        traces: Sequence[Tokens],
        cuts: Sequence[Tokens],
        suffix: Tokens,
        continuations: Sequence[Sequence[Tokens]],
        temperature: float = 1.0,
    ) -> list[np.ndarray]:
        """See `Engine.score`. All branches of a trace share it in one pass, under a tree-shaped attention mask."""
        tree_of = cache(lambda answers: AnswerTree(suffix, answers))  # traces of a problem have the same
        trees = [tree_of(tuple(map(tuple, answers))) for answers in continuations]
        asked = list(zip(traces, cuts, trees, strict=True))
        sizes = [len(trace) + len(cut) * tree.size for trace, cut, tree in asked]
        results: list[np.ndarray] = [np.empty(0)] * len(traces)
        order = sorted(range(len(traces)), key=sizes.__getitem__, reverse=True)
        scored_traces = bar(total=len(traces), desc="scoring", unit="trace")
        with _at_rest(self.model):
            fused = self._fused()
        while order:
            rows, trace_columns, branch_columns = 0, 0, 0
            for i in order:
                trace_columns = max(trace_columns, len(traces[i]))
                branch_columns = max(branch_columns, len(cuts[i]) * trees[i].size)
                if rows and (rows + 1) * (trace_columns + branch_columns) > self.score_tokens:
                    break
                rows += 1
            batch, order = order[:rows], order[rows:]
            *packed, n_columns = pack_trees([asked[i] for i in batch])
            ids, positions, mask = (torch.from_numpy(array).to(self.model.device) for array in packed)
            with _at_rest(self.model):
                logits = self._tree_logits(fused, [traces[i] for i in batch], ids, positions, mask[:, None], n_columns)
                logprobs = torch.log_softmax(logits.float() / temperature, dim=-1)
            for row, i in enumerate(batch):
                own, n_cuts = trees[i], len(cuts[i])
                branches = logprobs[row, : n_cuts * own.size].reshape(n_cuts, own.size, logprobs.shape[-1])
                scored = branches[:, own.parents, own.tokens_scored].double().cpu().numpy()
                results[i] = scored @ own.paths.T
            scored_traces.update(rows)
        scored_traces.close()
        return results

    def _fused(self) -> FusedModel | None:
        """The model as it is now, if it can be computed in fewer operations; the memory is of these weights then."""
        if not FusedModel.fits(self.model):
            return None
        fused = FusedModel(self.model)
        self._memory.begin(fused)
        return fused

    def _tree_logits(
        self,
        fused: FusedModel | None,
        traces: Sequence[Tokens],
        ids: Tensor,
        positions: Tensor,
        mask: Tensor,
        n_columns: int,
    ) -> Tensor:
        """Logits (rows, n_columns, n_symbols) of the last columns of the packed trees of these traces."""
        if fused is None:
            given = {"input_ids": ids, "attention_mask": mask, "position_ids": positions}
            return self.model(**given, use_cache=False, logits_to_keep=n_columns).logits
        rows, length = ids.shape
        of_traces, of_branches = slice(0, length - n_columns), slice(length - n_columns, length)
        known = self._memory.find(traces, new=False)
        if known:
            cache = pad_rows(known, length - n_columns)
        else:
            cache = []
            fused.hidden(
                ids[:, of_traces].flatten(),
                positions[:, of_traces].flatten(),
                in_rows((rows, length - n_columns), keep=cache),
            )
        attend = in_rows((rows, n_columns), mask[:, :, of_branches], before=cache)
        hidden = fused.hidden(ids[:, of_branches].flatten(), positions[:, of_branches].flatten(), attend)
        return fused.logits(hidden.unflatten(0, (rows, n_columns)))


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


def _draw(logits: Tensor, temperature: float, generator: torch.Generator) -> tuple[Tensor, Tensor]:
    """One token for each row of logits, and its log-probability; the most probable one at temperature 0.

    A uniform number picks it from the cumulated probabilities: a random number for each symbol, as the Gumbel trick and
    torch.multinomial take it, costs more than all else where there are many symbols.
    """
    logprobs = torch.log_softmax(logits.float() / (temperature or 1.0), dim=-1)
    if temperature > 0:
        cumulated = logprobs.double().exp().cumsum(dim=-1)
        drawn = torch.rand(len(logits), 1, dtype=torch.float64, device=logits.device, generator=generator)
        tokens = torch.searchsorted(cumulated, drawn * cumulated[:, -1:], right=True).clamp(max=logits.shape[-1] - 1)
    else:
        tokens = logprobs.argmax(dim=-1, keepdim=True)
    return tokens[:, 0], logprobs.gather(1, tokens)[:, 0]
