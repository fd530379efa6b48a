import types

import numpy as np
import pytest
import torch

from mrt_pipeline.policy.policy import add_adapters
from mrt_pipeline.trainer.batch import TrainingSequence, collate
from mrt_pipeline.trainer.logprobs import token_logprobs


@pytest.fixture
def policy(letters_policy, copy_policy):
    return copy_policy(letters_policy)


@pytest.fixture
def batch():
    rng = np.random.default_rng(0)
    lengths = [9, 4, 7]
    return collate(
        [TrainingSequence(rng.integers(1, 16, size=3 + n), 3, np.ones(n), np.ones(n, bool), None) for n in lengths]
    )


def gradients(model, batch, **how):
    model.zero_grad()
    logprobs, entropy = token_logprobs(model, batch, **how)
    (logprobs * torch.arange(logprobs.numel()).reshape(logprobs.shape)).sum().backward()
    found = {name: p.grad.clone() for name, p in model.named_parameters() if p.grad is not None}
    return logprobs.detach(), entropy, found


def adapted(model):
    model = add_adapters(model, rank=2, alpha=4, dropout=0.0, seed=0)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if "lora_B" in name:
                parameter.normal_(std=0.1)
    return model


@pytest.mark.parametrize("most_logits", [1, 100, 200])  # one position a piece; two; four, the last piece shorter
@pytest.mark.parametrize("wrap", [lambda model: model, adapted], ids=["plain", "adapters"])
def test_in_pieces_it_is_the_same_to_the_gradient(policy, batch, wrap, most_logits):
    model = wrap(policy.model)
    whole = gradients(model, batch, temperature=0.7)
    pieces = gradients(model, batch, temperature=0.7, most_logits=most_logits)
    torch.testing.assert_close(pieces[0], whole[0])
    torch.testing.assert_close(pieces[1], whole[1])
    assert pieces[2].keys() == whole[2].keys() and len(whole[2]) > 4
    for name, gradient in whole[2].items():
        torch.testing.assert_close(pieces[2][name], gradient, rtol=0, atol=1e-5 * gradient.abs().max().item())


@pytest.mark.parametrize("most_logits", [100])
def test_in_pieces_no_call_of_the_head_exceeds_the_limit(policy, batch, most_logits):
    seen = []
    policy.model.get_output_embeddings().register_forward_hook(lambda _, __, output: seen.append(output.numel()))
    gradients(policy.model, batch, most_logits=most_logits)
    assert max(seen) <= most_logits < batch.targets.numel() * 16
    assert sum(seen) > 2 * batch.targets.numel() * 16 - 1  # each position once forward and once backward


def test_mixed_precision_holds_for_the_pieces_too(policy, batch):
    model = policy.model
    model.forward = torch.autocast("cpu", torch.bfloat16)(model.forward)  # as accelerate wraps it
    whole, pieces = (gradients(model, batch, **how) for how in ({}, {"most_logits": 100}))
    torch.testing.assert_close(pieces[0], whole[0], rtol=0.02, atol=0.02)
    types_seen = []
    model.get_output_embeddings().register_forward_hook(lambda _, __, output: types_seen.append(output.dtype))
    token_logprobs(model, batch, most_logits=100)
    assert set(types_seen) == {torch.bfloat16}


def test_a_model_that_changes_its_logits_after_the_head_is_asked_for_them_itself(policy, batch):
    plain = policy.model.forward

    def scaled(self, *args, **kwargs):
        output = plain(*args, **kwargs)
        output.logits = output.logits * 0.5
        return output

    policy.model.forward = types.MethodType(scaled, policy.model)
    whole, pieces = (gradients(policy.model, batch, **how) for how in ({}, {"most_logits": 100}))
    torch.testing.assert_close(pieces[0], whole[0])


def test_a_wrapped_model_is_only_called(policy, batch):
    class Wrapper(torch.nn.Module):
        def __init__(self, module):
            super().__init__()
            self.module = module

        def forward(self, **inputs):
            return self.module(**inputs)

    whole = gradients(policy.model, batch)
    wrapped = gradients(Wrapper(policy.model), batch, most_logits=100)
    torch.testing.assert_close(wrapped[0], whole[0])
