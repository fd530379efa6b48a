"""The forward pass of a Llama-like model in fewer and larger operations: what makes small models fast on a processor.

transformers' modules launch some sixty small operations a layer, which for a model of a third of a million parameters
cost more than its matrix products. Here the projections of a layer's attention are one product, as are the two of its
MLP; the weights of the norms are folded into the products that follow; and a rotation of positions is one complex
multiplication. Tokens come as one flat list, so that nothing is computed for padding. Only where keys and values lie
differs between sampling, scoring and training, so each brings its own attention.

LoRA adapters are added to the weights that they belong to, once for a whole call of sampling or scoring. For training
they stay apart: a gradient of the sum costs as much as that of all weights.
"""

from collections.abc import Callable, Iterator, Sequence
from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor
from transformers import LlamaForCausalLM, Qwen2ForCausalLM

from mrt_pipeline.policy.policy import has_adapters

Attend = Callable[[int, Tensor, Tensor, Tensor], Tensor]
"""attend(layer, queries, keys, values) -> mixed values (n_tokens, n_heads, width).

queries (n_tokens, n_heads, width), already scaled; keys and values (n_tokens, n_kv_heads, width); all rotated.
"""


class _Layer(NamedTuple):
    """Weights (out, in) of a layer; the norms before them are folded in."""

    attention: Tensor
    bias: Tensor | None
    output: Tensor
    gate_and_up: Tensor
    down: Tensor


class FusedModel:
    """The weights of a model as they are now, laid out anew; under autograd, gradients reach the model's own."""

    @staticmethod
    def fits(model: Any) -> bool:
        """Whether the model is one of those that are computed here, with nothing around it that would be lost."""
        trained = model.training
        if "forward" in vars(model):  # as for mixed precision
            return False
        if has_adapters(model) and (trained or not _can_be_added(model)):
            return False
        model = _without_adapters(model)
        if type(model) not in (LlamaForCausalLM, Qwen2ForCausalLM) or model.dtype != torch.float32:
            return False
        config, rope = model.config, model.model.rotary_emb.rope_type
        return (
            config.hidden_act == "silu"
            and _plain(model.model.layers[0].self_attn.o_proj).bias is None
            and not getattr(config, "mlp_bias", False)
            and not getattr(config, "use_sliding_window", False)
            and "dynamic" not in rope  # whose rotation depends on the length
            and rope != "longrope"
            and not (trained and (model.is_gradient_checkpointing or config.attention_dropout))
        )

    def __init__(self, model: Any):
        model = _without_adapters(model)
        config, layers = model.config, model.model.layers
        self.n_heads, self.n_kv_heads = config.num_attention_heads, config.num_key_value_heads
        self.width, self._eps = layers[0].self_attn.head_dim, config.rms_norm_eps
        self._rotary = model.model.rotary_emb
        # Of each head the two halves are rotated against each other; side by side they are real and imaginary parts.
        pairs = torch.arange(self.width, device=model.device).view(2, -1).T.reshape(-1)

        def paired(weight: Tensor, n_heads: int, scale: float = 1.0) -> Tensor:
            return (weight.view(n_heads, self.width, *weight.shape[1:])[:, pairs] * scale).flatten(0, 1)

        self._layers = []
        for layer in layers:
            own, mlp = layer.self_attn, layer.mlp
            q, k, v = own.q_proj, own.k_proj, own.v_proj
            biases = [_plain(linear).bias for linear in (q, k, v)]

            def together(queries: Tensor, keys: Tensor, values: Tensor, scale: float = own.scaling) -> Tensor:
                return torch.cat([paired(queries, self.n_heads, scale), paired(keys, self.n_kv_heads), values])

            self._layers.append(
                _Layer(
                    together(_weight(q), _weight(k), _weight(v)) * layer.input_layernorm.weight,
                    together(*biases) if biases[0] is not None else None,
                    _weight(own.o_proj),
                    torch.cat([_weight(mlp.gate_proj), _weight(mlp.up_proj)]) * layer.post_attention_layernorm.weight,
                    _weight(mlp.down_proj),
                )
            )
        self.n_layers = len(self._layers)
        self._embedding = model.get_input_embeddings().weight
        self._padding = model.get_input_embeddings().padding_idx
        self._head = model.get_output_embeddings().weight * model.model.norm.weight

    def weights(self) -> Iterator[Tensor]:
        """All that keys and values depend on."""
        yield self._embedding
        for layer in self._layers:
            yield from (weight for weight in layer if weight is not None)

    def hidden(self, ids: Tensor, positions: Tensor, attend: Attend) -> Tensor:
        """What the head gets for each token. ids, positions: int64 (n_tokens,). Returns (n_tokens, hidden_size)."""
        x = F.embedding(ids, self._embedding, self._padding)
        cos, sin = self._rotary(x[None], positions[None])
        turn = torch.complex(cos[0, :, : self.width // 2], sin[0, :, : self.width // 2])[:, None]
        n_turned = self.n_heads + self.n_kv_heads
        for number, layer in enumerate(self._layers):
            projected = F.linear(self._norm(x), layer.attention, layer.bias).unflatten(-1, (-1, self.width))
            straight, values = projected.split([n_turned, self.n_kv_heads], dim=1)
            turned = torch.view_as_real(torch.view_as_complex(straight.unflatten(-1, (-1, 2))) * turn).flatten(-2)
            queries, keys = turned.split([self.n_heads, self.n_kv_heads], dim=1)
            x = x + F.linear(attend(number, queries, keys, values).flatten(1), layer.output)
            gate, up = F.linear(self._norm(x), layer.gate_and_up).chunk(2, dim=-1)
            x = x + F.linear(F.silu(gate) * up, layer.down)
        return self._norm(x)

    def logits(self, hidden: Tensor) -> Tensor:
        """Of what `hidden` returned, or some of it: (..., n_symbols)."""
        return F.linear(hidden, self._head)

    def _norm(self, x: Tensor) -> Tensor:
        return F.rms_norm(x, x.shape[-1:], eps=self._eps)


def _without_adapters(model: Any) -> Any:
    return model.get_base_model() if has_adapters(model) else model


def _can_be_added(model: Any) -> bool:
    """Whether its adapters are plain LoRA of linear layers, whose effect is that of a sum of weights."""
    from peft.tuners import lora  # half a second, and only models with adapters need it
    from peft.tuners.tuners_utils import BaseTunerLayer
    from peft.utils.other import AuxiliaryTrainingWrapper

    if any(config.peft_type != "LORA" for config in model.peft_config.values()):
        return False
    layers = [module for module in model.modules() if isinstance(module, BaseTunerLayer | AuxiliaryTrainingWrapper)]
    return all(
        type(layer) is lora.Linear and not layer.lora_variant and not any(layer.lora_bias.values()) for layer in layers
    )


def _plain(linear: Any) -> Any:
    """The layer without adapters."""
    return linear.get_base_layer() if hasattr(linear, "get_base_layer") else linear


def _weight(linear: Any) -> Tensor:
    """(out, in), with the adapters that are switched on, unless they are in it already."""
    weight = _plain(linear).weight
    if linear is not _plain(linear) and not linear.disable_adapters:
        for adapter in linear.active_adapters:
            if adapter in linear.lora_A and adapter not in linear.merged_adapters:
                weight = weight + linear.get_delta_weight(adapter)
    return weight


def in_rows(
    shape: tuple[int, int],
    mask: Tensor | None = None,
    before: Sequence[tuple[Tensor, Tensor]] = (),
    keep: list[tuple[Tensor, Tensor]] | None = None,
) -> Attend:
    """Attention among tokens that are the flattened rows of a rectangle of this shape, (rows, length).

    mask: bool (rows, 1, length, n_keys), True where a query sees a key; None: each sees what stands before it.
    before: of each layer, keys and values (rows, n_kv_heads, n, width) that stand before the row.
    keep: gets the keys and values of each layer in that form.
    """
    if mask is not None:  # numbers, made once for all layers
        mask = torch.zeros(mask.shape, device=mask.device).masked_fill_(~mask, float("-inf"))

    def attend(layer: int, queries: Tensor, keys: Tensor, values: Tensor) -> Tensor:
        same_heads = queries.shape[1] == keys.shape[1]
        queries, keys, values = (part.unflatten(0, shape).transpose(1, 2) for part in (queries, keys, values))
        if keep is not None:
            keep.append((keys, values))
        if before:
            keys, values = (torch.cat(pair, dim=2) for pair in zip(before[layer], (keys, values), strict=True))
        mixed = F.scaled_dot_product_attention(
            queries, keys, values, attn_mask=mask, is_causal=mask is None, scale=1.0, enable_gqa=not same_heads
        )
        return mixed.transpose(1, 2).flatten(0, 1)

    return attend
