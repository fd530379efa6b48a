"""The embedded engine: plain torch on the policy itself, with a preallocated key-value cache."""

from collections.abc import Sequence
from typing import TYPE_CHECKING, Literal

import numpy as np
import torch
from pydantic import Field
from transformers.cache_utils import Cache, DynamicLayer

from mrt_pipeline.engines.base import NO_CHOICE, Completion, EngineParams, SamplingParams, StopReason
from mrt_pipeline.engines.tree import AnswerTree, pack_trees
from mrt_pipeline.registry import PositiveInt

if TYPE_CHECKING:
    from mrt_pipeline.policy.policy import Policy

_COMPACT_BELOW = 0.75  # drop finished rows from the batch when fewer than this share is still running


class _PreallocatedLayer(DynamicLayer):
    """A cache layer whose memory is taken once; attention sees only the part filled so far."""

    def __init__(self, max_length: int):
        super().__init__()
        self._max_length, self._length = max_length, 0

    def lazy_initialization(self, key_states: torch.Tensor, value_states: torch.Tensor) -> None:
        batch, heads, _, head_dim = key_states.shape
        self.dtype, self.device = key_states.dtype, key_states.device
        self._keys = key_states.new_empty(batch, heads, self._max_length, head_dim)
        self._values = value_states.new_empty(batch, heads, self._max_length, value_states.shape[-1])
        self.is_initialized = True

    def update(self, key_states: torch.Tensor, value_states: torch.Tensor, *args, **kwargs):
        if not self.is_initialized:
            self.lazy_initialization(key_states, value_states)
        end = self._length + key_states.shape[-2]
        self._keys[:, :, self._length : end] = key_states
        self._values[:, :, self._length : end] = value_states
        self._length = end
        self.keys, self.values = self._keys[:, :, :end], self._values[:, :, :end]
        return self.keys, self.values

    def get_seq_length(self) -> int:
        return self._length

    def select(self, rows: torch.Tensor) -> None:
        """Keep (or repeat) these rows of the batch."""
        self._keys, self._values = self._keys[rows], self._values[rows]


class TorchEngine:
    """Samples and scores with the very module that is trained, so its weights are always the current ones.

    model: a transformers causal language model.
    batch_size: rows sampled at once.
    score_tokens: most tokens of one scoring pass (rows times padded length).
    """

    shares_weights = True

    def __init__(self, model, batch_size: int = 256, score_tokens: int = 4_096):
        self.model, self.batch_size, self.score_tokens = model, batch_size, score_tokens

    def update_weights(self) -> None:
        """Nothing to do: the weights are shared with the trainer."""

    @torch.inference_mode()
    def sample(
        self,
        prompts: Sequence[Sequence[int]],
        params: SamplingParams,
        seed: int,
        min_tokens: int | Sequence[int] = 0,
        max_tokens: Sequence[int] | None = None,
    ) -> list[Completion]:
        """See `Engine.sample`."""
        if not prompts:
            return []
        least, most = params.limits(len(prompts), min_tokens, max_tokens)
        generator = torch.Generator(self.model.device).manual_seed(seed)
        was_training = self.model.training
        self.model.eval()
        try:
            step = max(1, self.batch_size // params.n)
            return [
                completion
                for start in range(0, len(prompts), step)
                for completion in self._sample_batch(
                    prompts[start : start + step],
                    params,
                    least[start : start + step],
                    most[start : start + step],
                    generator,
                )
            ]
        finally:
            self.model.train(was_training)

    def _sample_batch(self, prompts, params: SamplingParams, min_tokens, max_tokens, generator) -> list[Completion]:
        device, n = self.model.device, params.n
        lengths = torch.tensor([len(prompt) for prompt in prompts])
        longest = int(lengths.max())
        ids = torch.zeros(len(prompts), longest, dtype=torch.long)
        for row, prompt in enumerate(prompts):  # padded on the left: all rows go on from the same column
            ids[row, longest - len(prompt) :] = torch.as_tensor(prompt, dtype=torch.long)
        padding = (longest - lengths).to(device)
        cache = Cache(
            layers=[_PreallocatedLayer(longest + params.max_tokens) for _ in range(self.model.config.num_hidden_layers)]
        )
        columns = torch.arange(longest, device=device)
        mask = None
        if int(padding.max()):
            real = columns >= padding[:, None]
            mask = (columns[:, None] >= columns)[None] & real[:, None, :]
            mask |= torch.eye(longest, dtype=torch.bool, device=device)  # a padded query must see something
            mask = mask[:, None]
        positions = (columns - padding[:, None]).clamp(min=0)
        logits = self.model(
            input_ids=ids.to(device),
            attention_mask=mask,
            position_ids=positions,
            past_key_values=cache,
            use_cache=True,
            logits_to_keep=1,
        ).logits[:, -1]

        rows = torch.arange(len(prompts), device=device).repeat_interleave(n)
        if n > 1:
            for layer in cache.layers:
                layer.select(rows)
        padding, logits = padding[rows], logits[rows]
        least, most = (torch.as_tensor(limits.copy(), device=device)[rows] for limits in (min_tokens, max_tokens))
        state = _SamplingState(params, least, most)
        active = torch.arange(len(rows), device=device)
        for step in range(params.max_tokens + 1):
            tokens = state.advance(step, active, logits, generator)
            keep = ~state.done[active]
            running = int(keep.sum())
            if running == 0:
                break
            if running < _COMPACT_BELOW * len(active):
                kept = keep.nonzero()[:, 0]
                active, tokens, padding = active[kept], tokens[kept], padding[kept]
                for layer in cache.layers:
                    layer.select(kept)
            length = longest + step + 1
            if int(padding.max()):
                mask = (torch.arange(length, device=device) >= padding[:, None])[:, None, None]
            else:
                mask = None
            logits = self.model(
                input_ids=tokens[:, None],
                attention_mask=mask,
                position_ids=(length - 1 - padding)[:, None],
                past_key_values=cache,
                use_cache=True,
            ).logits[:, -1]
        return state.completions()

    @torch.inference_mode()
    def score(
        self,
        traces: Sequence[Sequence[int]],
        cuts: Sequence[Sequence[int]],
        suffix: Sequence[int],
        continuations: Sequence[Sequence[Sequence[int]]],
        temperature: float = 1.0,
    ) -> list[np.ndarray]:
        """See `Engine.score`. All branches of a trace share it in one pass, under a tree-shaped attention mask."""
        trees = [AnswerTree(suffix, answers) for answers in continuations]
        sizes = [len(trace) + len(cut) * tree.size for trace, cut, tree in zip(traces, cuts, trees, strict=True)]
        results: list[np.ndarray] = [np.empty(0)] * len(traces)
        order = sorted(range(len(traces)), key=sizes.__getitem__, reverse=True)
        was_training = self.model.training
        self.model.eval()
        try:
            while order:
                rows, trace_columns, branch_columns = 0, 0, 0
                for i in order:
                    trace_columns = max(trace_columns, len(traces[i]))
                    branch_columns = max(branch_columns, len(cuts[i]) * trees[i].size)
                    if rows and (rows + 1) * (trace_columns + branch_columns) > self.score_tokens:
                        break
                    rows += 1
                batch, order = order[:rows], order[rows:]
                packed = pack_trees([traces[i] for i in batch], [cuts[i] for i in batch], [trees[i] for i in batch])
                ids, positions, mask = (torch.from_numpy(a).to(self.model.device) for a in packed[:3])
                branch_length = packed[3]
                logits = self.model(
                    input_ids=ids,
                    position_ids=positions,
                    attention_mask=mask[:, None],
                    use_cache=False,
                    logits_to_keep=branch_length,
                ).logits
                logprobs = torch.log_softmax(logits.float() / temperature, dim=-1)
                for row, i in enumerate(batch):
                    tree, n_cuts = trees[i], len(cuts[i])
                    branches = logprobs[row, : n_cuts * tree.size].reshape(n_cuts, tree.size, logprobs.shape[-1])
                    scored = branches[:, tree.parents, tree.tokens_scored].double().cpu().numpy()
                    results[i] = scored @ tree.paths.T
        finally:
            self.model.train(was_training)
        return results


class TorchEngineParams(EngineParams):
    """The embedded engine; see engines/torch_engine.py."""

    name: Literal["torch"] = "torch"
    batch_size: PositiveInt = Field(default=256, description="rows sampled at once")
    score_tokens: PositiveInt = Field(default=4096, description="most padded tokens of a scoring pass")

    def open(self, policy: "Policy") -> TorchEngine:
        """See `EngineParams.open`."""
        return TorchEngine(policy.model, self.batch_size, self.score_tokens)


class _SamplingState:
    """What has been sampled so far for every row, and which rows are done."""

    def __init__(self, params: SamplingParams, min_tokens: torch.Tensor, max_tokens: torch.Tensor):
        self.params, self.min_tokens, self.max_tokens = params, min_tokens, max_tokens
        device, rows = min_tokens.device, len(min_tokens)
        shape = (rows, params.max_tokens)
        self.tokens = torch.zeros(shape, dtype=torch.long, device=device)
        self.logprobs = torch.zeros(shape, device=device)
        self.choices = torch.full(shape, NO_CHOICE, device=device)
        self.done = torch.zeros(rows, dtype=torch.bool, device=device)
        self.length = max_tokens.clone()
        self.natural_length = torch.full((rows,), -1, device=device)
        self.stop_token = torch.full((rows,), -1, device=device)
        self.stop_logprob = torch.zeros(rows, device=device)
        self.stop_ids = torch.tensor(params.stop_token_ids, dtype=torch.long, device=device)
        lengths = [len(extension) for extension in params.extensions]
        padded = [[*extension, *[0] * (max(lengths) - len(extension))] for extension in params.extensions]
        self.extensions = torch.tensor(padded, dtype=torch.long, device=device)
        self.extension_lengths = torch.tensor(lengths, dtype=torch.long, device=device)
        self.forced = torch.zeros(rows, dtype=torch.long, device=device)  # tokens of an extension put in so far
        self.turn = torch.zeros(rows, dtype=torch.long, device=device)  # which extension is next

    def advance(self, step: int, active: torch.Tensor, logits: torch.Tensor, generator) -> torch.Tensor:
        """Sample one token for each active row and record it. Returns the tokens to feed next.

        A row that has all its tokens can only stop: the token is its stop token, or the row ends by length.
        """
        logits = logits.float()
        if self.params.temperature > 0:
            logits = logits / self.params.temperature
            logprobs = torch.log_softmax(logits, dim=-1)
            noise = torch.empty_like(logprobs).exponential_(generator=generator).log_()
            tokens = (logprobs - noise).argmax(dim=-1)  # the Gumbel trick
        else:
            logprobs = torch.log_softmax(logits, dim=-1)
            tokens = logprobs.argmax(dim=-1)
        chosen = logprobs.gather(1, tokens[:, None])[:, 0]

        running = ~self.done[active]
        full = running & (step >= self.max_tokens[active])
        stopping = running & torch.isin(tokens, self.stop_ids) & (self.max_tokens[active] > 0)
        choices = tokens
        if len(self.extensions):
            forced, turn = self.forced[active], self.turn[active]
            in_extension = running & (forced > 0)
            stopping &= ~in_extension
            held = stopping & (step < self.min_tokens[active])
            first = held & (self.natural_length[active] < 0)
            self.natural_length[active[first]] = step
            injected = in_extension | held
            tokens = torch.where(injected, self.extensions[turn, forced], tokens)
            choices = torch.where(in_extension, NO_CHOICE, choices)
            chosen = torch.where(in_extension, 0.0, chosen)
            forced = torch.where(injected, forced + 1, 0)
            whole = forced == self.extension_lengths[turn]
            self.forced[active] = torch.where(whole, 0, forced)
            self.turn[active] = torch.where(whole, (turn + 1) % len(self.extensions), turn)
            stopping &= ~held
        stopped = active[stopping]
        self.stop_token[stopped], self.stop_logprob[stopped] = tokens[stopping], chosen[stopping]
        self.length[stopped], self.done[stopped] = step, True
        self.done[active[full]] = True
        if step < self.params.max_tokens:
            self.tokens[active, step], self.logprobs[active, step] = tokens, chosen
            self.choices[active, step] = choices
        return tokens

    def completions(self) -> list[Completion]:
        """All rows as completions."""
        tokens, choices, logprobs = (a.cpu().numpy() for a in (self.tokens, self.choices, self.logprobs))
        length, natural, stop_token, stop_logprob = (
            a.tolist() for a in (self.length, self.natural_length, self.stop_token, self.stop_logprob)
        )
        result = []
        for row, n in enumerate(length):
            stopped = stop_token[row] >= 0
            result.append(
                Completion(
                    token_ids=tokens[row, :n].copy(),
                    choices=choices[row, :n].copy(),
                    logprobs=logprobs[row, :n].astype(np.float32),
                    stop_reason=StopReason.STOP if stopped else StopReason.LENGTH,
                    stop_token_id=stop_token[row] if stopped else None,
                    stop_logprob=stop_logprob[row],
                    natural_length=natural[row] if natural[row] >= 0 else n,
                )
            )
        return result
