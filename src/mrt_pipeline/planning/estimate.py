"""Memory, tokens and hours of a training run, from sizes alone.

Estimates, for deciding whether to start; none of it was measured. With engine=vllm the trainer and the engine share
every device (colocated); engine=vllm_server has tensor_parallel_size x data_parallel_size devices of its own beside
those of the trainer. The trainer's copy is not sharded (accelerate without ZeRO), so each device holds all of it.
"""

from dataclasses import dataclass
from typing import Literal

from pydantic import Field

from mrt_pipeline.engines.base import EngineParams
from mrt_pipeline.planning.shapes import ACCELERATORS, ModelShape
from mrt_pipeline.policy.configured import LanguageModelPolicy, longest_answer
from mrt_pipeline.registry import Params, PositiveInt
from mrt_pipeline.rollouts.rollout import RolloutParams
from mrt_pipeline.trainer.params import TrainingParams

_GIB = 2**30
_COMPUTE = 0.35  # share of the peak throughput that training reaches
_BANDWIDTH = 0.5  # share of the memory bandwidth that sampling reaches
_CACHE = 0.3  # share of a device's memory for the cache of an engine that shares it with the trainer
_BYTES = {"float32": 4, "bfloat16": 2}


class PlanParams(Params):
    """What a run is planned for; see planning/estimate.py. Nothing else depends on it."""

    device: Literal["h100", "a100", "l40s"] = Field(default="h100", description="kind of accelerator")
    n_devices: PositiveInt = Field(default=8, description="how many")
    mean_thinking: PositiveInt = Field(default=5000, description="thinking tokens of a rollout on average")


@dataclass(frozen=True)
class Estimate:
    """memory: GiB of each device, by what it is for. hours: by part of the work, on all devices. n_rollouts: in all."""

    memory: dict[str, float]
    hours: dict[str, float]
    n_rollouts: float


def estimate(
    shape: ModelShape,
    policy: LanguageModelPolicy,
    engine: EngineParams,
    rollout: RolloutParams,
    training: TrainingParams,
    plan: PlanParams,
) -> Estimate:
    """What training needs. The prover's forced answers, validation and evaluation come on top of the hours."""
    from mrt_pipeline.engines.vllm_engine import VLLMEngineParams, VLLMParams
    from mrt_pipeline.engines.vllm_server import VLLMServerEngineParams
    from mrt_pipeline.trainer.logprobs import MOST_LOGITS

    answer = longest_answer(policy.given_template, rollout)
    weight = _BYTES[policy.dtype]
    computed = 2 if training.learner.mixed_precision == "bf16" else weight
    trained = shape.lora_parameters(policy.lora.rank) if policy.lora else shape.parameters
    trained_bytes = 4 if policy.lora else weight
    tokens = max(training.learner.micro_batch_tokens, policy.max_length)  # a long trace may exceed a micro-batch
    layer = 16 * shape.hidden + 3 * shape.intermediate  # values that a layer keeps for its backward pass, a token
    kept = 2 * shape.hidden * shape.layers + layer if policy.gradient_checkpointing else layer * shape.layers
    memory: dict[str, float] = {
        "weights": shape.parameters * weight + (trained * 4 if policy.lora else 0),
        "gradients": trained * trained_bytes,
        "optimizer, two moments": 2 * trained * trained_bytes,
        "activations of a micro-batch": tokens * kept * computed,
        "its logits and their gradient": 16 * min(MOST_LOGITS, tokens * shape.vocabulary),
    }
    device = ACCELERATORS[plan.device]
    room, sampling_devices = device.memory_gib * _GIB * _CACHE, plan.n_devices
    if isinstance(engine, VLLMEngineParams):
        memory["engine's weights"] = shape.parameters * 2
        memory["engine's cache"] = room
    if isinstance(engine, VLLMServerEngineParams):
        sampling_devices = engine.tensor_parallel_size * engine.data_parallel_size
        held = shape.parameters * 2 / engine.tensor_parallel_size
        room = max(0.0, device.memory_gib * _GIB * engine.gpu_memory_utilization - held)
    cache = shape.cache_bytes(2)
    side_by_side = max(1.0, room / (cache * (plan.mean_thinking + answer)))
    read = shape.parameters * 2 + side_by_side * cache * plan.mean_thinking / 2
    sampled_a_second = sampling_devices * side_by_side * device.bandwidth * _BANDWIDTH / read
    passes = 4 if policy.gradient_checkpointing else 3
    if isinstance(engine, VLLMParams):
        passes += 1  # to correct the mismatch of its own weights
    operations = 2 * shape.parameters * training.sampled_tokens * passes
    hours = {
        "sampling": training.sampled_tokens / sampled_a_second / 3600,
        "updates": operations / (plan.n_devices * device.flops * _COMPUTE) / 3600,
    }
    n_rollouts = training.sampled_tokens / (plan.mean_thinking + answer)
    return Estimate({name: value / _GIB for name, value in memory.items()}, hours, n_rollouts)
