"""The fused forward pass against transformers' own, which is the specification."""

import copy

import pytest
import torch
from peft import IA3Config, LoraConfig, PromptTuningConfig, get_peft_model
from transformers import LlamaConfig, LlamaForCausalLM, MistralConfig, MistralForCausalLM, Qwen2Config, Qwen2ForCausalLM

from mrt_pipeline.policy.fused import FusedModel, in_rows
from mrt_pipeline.policy.policy import add_adapters

SIZES = {
    "vocab_size": 31,
    "hidden_size": 48,
    "num_hidden_layers": 3,
    "num_attention_heads": 6,
    "intermediate_size": 80,
    "max_position_embeddings": 128,
    "pad_token_id": 0,
}
LLAMA_3 = {
    "rope_type": "llama3",
    "rope_theta": 10_000.0,
    "factor": 4.0,
    "low_freq_factor": 1.0,
    "high_freq_factor": 4.0,
    "original_max_position_embeddings": 32,
}
MODELS = {
    "llama": lambda: LlamaForCausalLM(LlamaConfig(**SIZES, num_key_value_heads=6, tie_word_embeddings=True)),
    "grouped": lambda: LlamaForCausalLM(LlamaConfig(**SIZES, num_key_value_heads=2)),
    "wide heads": lambda: LlamaForCausalLM(LlamaConfig(**SIZES, num_key_value_heads=3, head_dim=12)),
    "llama 3": lambda: LlamaForCausalLM(LlamaConfig(**SIZES, num_key_value_heads=2, rope_parameters=LLAMA_3)),
    "qwen 2": lambda: Qwen2ForCausalLM(Qwen2Config(**SIZES, num_key_value_heads=2)),
}


@pytest.fixture(params=MODELS)
def model(request):
    """Weights that are large enough for everything to matter: norms and biases are ones and zeros at first."""
    torch.manual_seed(0)
    model = MODELS[request.param]()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.copy_(
                torch.rand_like(parameter) + 0.5 if parameter.ndim == 1 else torch.randn_like(parameter) / 3
            )
    return model


def run(model, ids, positions=None, mask=None):
    positions = torch.arange(ids.shape[1]).expand_as(ids) if positions is None else positions
    fused = FusedModel(model)
    hidden = fused.hidden(ids.flatten(), positions.flatten(), in_rows(tuple(ids.shape), mask))
    return fused.logits(hidden).unflatten(0, ids.shape)


def test_logits_are_those_of_the_model(model):
    assert FusedModel.fits(model)
    ids = torch.randint(0, 31, (4, 40))  # token 0 is the padding, which is computed like any other
    with torch.no_grad():
        torch.testing.assert_close(run(model, ids), model(input_ids=ids).logits, rtol=1e-4, atol=1e-4)


def test_so_are_they_under_a_mask_and_at_other_positions(model):
    ids, positions = torch.randint(0, 31, (3, 20)), torch.randint(0, 100, (3, 20))
    mask = (torch.rand(3, 1, 20, 20) < 0.5) | torch.eye(20, dtype=torch.bool)
    with torch.no_grad():
        expected = model(input_ids=ids, position_ids=positions, attention_mask=mask).logits
        torch.testing.assert_close(run(model, ids, positions, mask), expected, rtol=1e-4, atol=1e-4)


def test_gradients_are_those_of_the_model(model):
    ids, weights = torch.randint(1, 31, (3, 20)), torch.randn(3, 20, 31)
    ids[:, -3:] = 0

    def gradients(logits):
        model.zero_grad()
        (torch.log_softmax(logits, -1) * weights).sum().backward()
        return {name: parameter.grad.clone() for name, parameter in model.named_parameters()}

    own, expected = gradients(run(model, ids)), gradients(model(input_ids=ids).logits)
    for name, gradient in expected.items():
        assert torch.allclose(own[name], gradient, atol=1e-4 * float(gradient.abs().max())), name


def test_what_stands_before_is_seen_and_what_is_kept_is_given_back(model):
    ids, fused = torch.randint(0, 31, (2, 30)), FusedModel(model)
    positions, kept = torch.arange(30).expand_as(ids), []
    with torch.no_grad():
        fused.hidden(ids[:, :18].flatten(), positions[:, :18].flatten(), in_rows((2, 18), keep=kept))
        mask = torch.ones(30, 30, dtype=torch.bool).tril()[18:].expand(2, 1, 12, 30)
        hidden = fused.hidden(ids[:, 18:].flatten(), positions[:, 18:].flatten(), in_rows((2, 12), mask, before=kept))
        expected = model(input_ids=ids).logits[:, 18:]
        torch.testing.assert_close(fused.logits(hidden).unflatten(0, (2, 12)), expected, rtol=1e-4, atol=1e-4)


def test_it_is_of_the_weights_as_they_are():
    model = MODELS["llama"]()
    before = [weight.clone() for weight in FusedModel(model).weights()]
    with torch.no_grad():
        model.model.layers[1].mlp.down_proj.weight[0, 0] += 1
    after = list(FusedModel(model).weights())
    assert [torch.equal(one, other) for one, other in zip(before, after, strict=True)].count(False) == 1


def test_what_it_would_compute_differently_does_not_fit():
    small = {**SIZES, "num_key_value_heads": 2}
    assert not FusedModel.fits(MistralForCausalLM(MistralConfig(**small)))
    assert not FusedModel.fits(LlamaForCausalLM(LlamaConfig(**small)).to(torch.bfloat16))
    assert not FusedModel.fits(LlamaForCausalLM(LlamaConfig(**small, hidden_act="gelu")))
    assert not FusedModel.fits(LlamaForCausalLM(LlamaConfig(**small, attention_bias=True)))
    assert not FusedModel.fits(LlamaForCausalLM(LlamaConfig(**small, mlp_bias=True)))
    dynamic = {"rope_type": "dynamic", "rope_theta": 10_000.0, "factor": 2.0}
    assert not FusedModel.fits(LlamaForCausalLM(LlamaConfig(**small, rope_parameters=dynamic)))
    sliding = Qwen2Config(**small, use_sliding_window=True, sliding_window=8, max_window_layers=0)
    assert not FusedModel.fits(Qwen2ForCausalLM(sliding))
    plain = LlamaForCausalLM(LlamaConfig(**small))
    for adapters in (
        LoraConfig(r=2, use_dora=True, target_modules=["q_proj"]),
        LoraConfig(r=2, lora_bias=True, target_modules=["q_proj"]),
        LoraConfig(r=2, target_modules=["embed_tokens"]),
        LoraConfig(r=2, target_modules=["q_proj"], modules_to_save=["lm_head"]),
        IA3Config(target_modules=["q_proj"], feedforward_modules=[]),
        PromptTuningConfig(task_type="CAUSAL_LM", num_virtual_tokens=2),
    ):
        assert not FusedModel.fits(get_peft_model(copy.deepcopy(plain), adapters).eval()), adapters


def test_adapters_are_added_to_the_weights_where_nothing_is_trained():
    torch.manual_seed(0)
    model = add_adapters(MODELS["qwen 2"](), rank=2, alpha=4, dropout=0.5, seed=0)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if "lora_B" in name:  # zeros at first
                parameter.normal_()
    assert not FusedModel.fits(model.train()) and FusedModel.fits(model.eval())
    ids = torch.randint(0, 31, (4, 40))
    with torch.no_grad():
        before = [weight.clone() for weight in model.state_dict().values()]
        torch.testing.assert_close(run(model, ids), model(input_ids=ids).logits, rtol=1e-4, atol=1e-4)
        with model.disable_adapter():
            torch.testing.assert_close(run(model, ids), model(input_ids=ids).logits, rtol=1e-4, atol=1e-4)
        adapted = run(model, ids)
        assert all(map(torch.equal, before, model.state_dict().values()))  # nothing was merged into them
        model.merge_adapter()
        torch.testing.assert_close(run(model, ids), adapted, rtol=1e-4, atol=1e-4)


def test_what_only_training_does_differently_fits_otherwise():
    model = LlamaForCausalLM(LlamaConfig(**SIZES, num_key_value_heads=2, attention_dropout=0.5))
    assert FusedModel.fits(model.eval()) and not FusedModel.fits(model.train())
    model = LlamaForCausalLM(LlamaConfig(**SIZES, num_key_value_heads=2)).train()
    assert FusedModel.fits(model)
    model.gradient_checkpointing_enable()
    assert not FusedModel.fits(model)


def test_a_forward_pass_that_was_replaced_is_not_passed_over():
    """As accelerate does it for mixed precision: its own state cannot be changed twice in a process."""
    model = LlamaForCausalLM(LlamaConfig(**SIZES, num_key_value_heads=2))
    assert FusedModel.fits(model)
    adapted = add_adapters(copy.deepcopy(model), rank=2, alpha=4, dropout=0.0, seed=0).eval()
    assert FusedModel.fits(adapted)
    for one in (model, adapted):
        one.forward = torch.autocast("cpu", torch.bfloat16)(one.forward)
        assert not FusedModel.fits(one)
