import dataclasses

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from mrt_pipeline.engines.base import SamplingParams
from mrt_pipeline.engines.torch_engine import TorchEngine
from mrt_pipeline.trainer.batch import TrainingSequence, collate
from mrt_pipeline.trainer.learner import Learner, LearnerParams
from mrt_pipeline.trainer.logprobs import token_logprobs

PLAIN = {"learning_rate": 1e-3, "weight_decay": 0.0}


def make_learner(policy, reference=None, temperature=1.0, **settings):
    return Learner(policy.model, LearnerParams(**PLAIN | settings), reference, temperature)


@pytest.fixture
def policy(letters_policy, copy_policy):
    return copy_policy(letters_policy)


def weights(policy):
    return torch.cat([p.detach().flatten() for p in policy.model.parameters()]).clone()


def logprobs(policy, sequence):
    with torch.no_grad():
        found, _ = token_logprobs(policy.model, collate([sequence]))
    return found[0].numpy()


def sequence(policy, weight, n=6, trained=None, seed=0, prompt_length=3):
    """A random sequence with the log-probabilities that the policy gives it."""
    rng = np.random.default_rng(seed)
    bare = TrainingSequence(
        rng.integers(1, 16, size=prompt_length + n),
        prompt_length,
        np.full(n, float(weight)),
        np.ones(n, bool) if trained is None else np.asarray(trained),
        None,
    )
    return dataclasses.replace(bare, logprobs=logprobs(policy, bare))


def test_constant_schedule_warms_up_and_stays(policy):
    learner = make_learner(policy, warmup=0.2)
    assert [learner.rate(f) for f in (0.05, 0.1, 0.2, 0.5, 1.0)] == pytest.approx([0.25, 0.5, 1, 1, 1])
    assert 0 < learner.rate(0.0) < 0.01
    assert make_learner(policy).rate(0.0) == 1


def test_cosine_schedule_falls_to_zero(policy):
    learner = make_learner(policy, warmup=0.2, schedule="cosine")
    assert [learner.rate(f) for f in (0.1, 0.2, 0.6, 1.0)] == pytest.approx([0.5, 1, 0.5, 0])
    assert learner.rate(1.3) == pytest.approx(0)


@given(st.just(0.0) | st.floats(0.01, 0.9), st.floats(0, 0.99), st.sampled_from(["constant", "cosine"]))
def test_the_rate_is_a_positive_share_of_the_peak_before_the_end(warmup, done, schedule):
    learner = object.__new__(Learner)
    learner.settings = LearnerParams(**PLAIN, warmup=warmup, schedule=schedule)
    assert 0 < learner.rate(done) <= 1


@pytest.mark.parametrize("optimizer", ["adamw", "muon"])
def test_the_rate_reaches_every_optimizer(policy, optimizer):
    learner = make_learner(policy, optimizer=optimizer, schedule="cosine", muon_learning_rate=0.05)
    metrics = learner.update([sequence(policy, 1)], 0.5, seed=0)
    rates = [group["lr"] for o in learner.optimizers for group in o.param_groups]
    assert rates == pytest.approx([5e-4] if optimizer == "adamw" else [5e-4, 0.025])
    assert metrics["learning_rate"] == pytest.approx(5e-4)


@pytest.mark.parametrize("optimizer", ["adamw", "muon"])
@pytest.mark.parametrize("weight", [1.0, -1.0])
def test_a_positive_weight_raises_the_logprob_and_a_negative_lowers_it(policy, optimizer, weight):
    item = sequence(policy, weight)
    learner = make_learner(policy, optimizer=optimizer)
    learner.update([item], 0.0, seed=0)
    change = logprobs(policy, item).sum() - item.logprobs.sum()
    assert change * weight > 1e-3


def test_only_trained_tokens_are_pushed(policy):
    # The gradient is the sum over trained tokens, found by plain autograd.
    item = sequence(policy, 2.0, trained=[True, False, False, True, False, False])
    logits = policy.model(input_ids=torch.from_numpy(item.token_ids)[None], use_cache=False).logits[0]
    chosen = torch.log_softmax(logits, -1)[[2, 5], item.token_ids[[3, 6]]]
    expected = torch.autograd.grad(-2.0 * chosen.sum() / 2, list(policy.model.parameters()))
    expected_norm = float(torch.cat([g.flatten() for g in expected]).norm())
    metrics = make_learner(policy).update([item], 0.0, seed=0)
    assert metrics["grad_norm"] == pytest.approx(expected_norm, rel=1e-3)
    assert metrics["loss"] == pytest.approx(-2.0, abs=1e-5)


def test_prompt_tokens_are_never_trained(policy):
    before = weights(policy)
    items = [sequence(policy, 0.0, prompt_length=p) for p in (1, 5)]
    metrics = make_learner(policy).update(items, 0.0, seed=0)
    assert metrics["grad_norm"] == 0
    assert torch.equal(weights(policy), before)


def test_without_trained_tokens_nothing_happens(policy):
    before = weights(policy)
    learner = make_learner(policy, weight_decay=0.5)
    metrics = learner.update([sequence(policy, 1.0, trained=[False] * 6)], 0.0, seed=0)
    assert torch.equal(weights(policy), before)
    assert learner.n_updates == 0
    assert metrics["grad_norm"] == metrics["loss"] == metrics["entropy"] == 0


def test_micro_batches_do_not_change_the_update(letters_policy, copy_policy):
    found = []
    for micro_batch_tokens in (10_000, 20, 1):
        policy = copy_policy(letters_policy)
        items = [sequence(policy, (-1) ** k * (k + 1), n=3 + 2 * k, seed=k) for k in range(4)]
        learner = make_learner(policy, micro_batch_tokens=micro_batch_tokens, max_grad_norm=1e9)
        found.append(learner.update(items, 0.0, seed=0))
    for metrics in found[1:]:
        assert metrics == pytest.approx(found[0], rel=1e-4, abs=1e-6)
    assert found[0]["grad_norm"] > 0.1


def test_minibatches_are_optimiser_steps_of_disjoint_parts(policy, monkeypatch):
    learner = make_learner(policy, minibatches=3)
    seen = []
    monkeypatch.setattr(learner, "_accumulate", lambda batch, n_tokens, totals: seen.append((batch, n_tokens)))
    monkeypatch.setattr(learner.accelerator, "clip_grad_norm_", lambda *args: torch.tensor(1.0))
    items = [sequence(policy, 1.0, n=4, seed=k) for k in range(7)]
    learner.update(items, 0.0, seed=0)
    assert learner.n_updates == 3
    rows = [tuple(row) for batch, _ in seen for row in batch.inputs["input_ids"].tolist()]
    assert sorted(rows) == sorted(tuple(item.token_ids) for item in items)
    assert sorted(n_tokens for _, n_tokens in seen) == [8, 8, 12]
    seen.clear()
    learner.update(items[:2], 0.0, seed=0)
    assert len(seen) == 2  # never more minibatches than sequences


def test_the_seed_deals_sequences_to_minibatches(letters_policy, copy_policy):
    def trained(seed):
        policy = copy_policy(letters_policy)
        items = [sequence(policy, (-1) ** k, n=4, seed=k) for k in range(6)]
        make_learner(policy, minibatches=2).update(items, 0.0, seed=seed)
        return weights(policy)

    assert torch.equal(trained(0), trained(0))
    assert not torch.equal(trained(0), trained(1))


def test_the_gradient_is_clipped(policy, monkeypatch):
    item = sequence(policy, 1000.0)
    learner = make_learner(policy, max_grad_norm=0.5)
    norms = []
    monkeypatch.setattr(
        learner.optimizers[0],
        "step",
        lambda: norms.append(float(torch.cat([p.grad.flatten() for p in policy.model.parameters()]).norm())),
    )
    metrics = learner.update([item], 0.0, seed=0)
    assert metrics["grad_norm"] > 1
    assert norms == pytest.approx([0.5], rel=1e-3)


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_a_gradient_that_is_not_finite_is_an_error_and_changes_nothing(policy, value):
    before = weights(policy)
    learner = make_learner(policy)
    with pytest.raises(FloatingPointError, match="learning_rate"):
        learner.update([sequence(policy, value)], 0.0, seed=0)
    assert torch.equal(weights(policy), before)


def test_after_a_bad_batch_a_good_one_can_be_trained(policy):
    learner = make_learner(policy)
    with pytest.raises(FloatingPointError):
        learner.update([sequence(policy, float("nan"))], 0.0, seed=0)
    learner.update([sequence(policy, 1.0)], 0.0, seed=0)


def test_metrics_are_means_over_trained_tokens(policy):
    item = sequence(policy, 1.0, trained=[True, True, False, True, False, True])
    old = item.logprobs + np.log([2.0, 1.0, 1.0, 0.5, 1.0, 1.0], dtype=np.float32)  # ratios 0.5, 1, 1, 2, 1, 1
    with torch.no_grad():
        _, entropy = token_logprobs(policy.model, collate([item]))
    metrics = make_learner(policy).update([dataclasses.replace(item, logprobs=old)], 0.0, seed=0)
    assert metrics["clip_fraction"] == pytest.approx(1 / 4)
    assert metrics["ratio_kl"] == pytest.approx((0.5 - 1 - np.log(0.5) + 2 - 1 - np.log(2)) / 4, rel=1e-4)
    assert metrics["entropy"] == pytest.approx(float(entropy[0, [0, 1, 3, 5]].mean()), rel=1e-4)
    assert metrics["loss"] == pytest.approx(-(0.5 + 1 + 1.28 + 1) / 4, rel=1e-4)
    assert metrics["kl"] == 0


def test_the_kl_term_needs_a_reference(policy):
    with pytest.raises(ValueError, match="reference"):
        make_learner(policy, kl_beta=0.1)


def test_the_kl_term_pulls_to_the_reference_and_leaves_it_alone(policy, letters_policy, copy_policy):
    reference = copy_policy(letters_policy)
    with torch.no_grad():
        for parameter in policy.model.parameters():
            parameter += 0.05 * torch.randn(parameter.shape, generator=torch.Generator().manual_seed(0))
    frozen = weights(reference)
    learner = make_learner(policy, reference.model, kl_beta=1.0)
    item = sequence(policy, 0.0)
    values = [learner.update([item], 0.0, seed=0)["kl"] for _ in range(8)]
    assert values[0] > 1e-3 and values[-1] < 0.8 * values[0]
    assert torch.equal(weights(reference), frozen)


def test_muon_takes_the_hidden_matrices_and_adamw_the_rest(policy):
    learner = make_learner(policy, optimizer="muon")
    adamw, muon = ({id(p) for group in o.param_groups for p in group["params"]} for o in learner.optimizers)
    for name, parameter in policy.model.named_parameters():
        hidden = parameter.ndim == 2 and "embed" not in name
        assert (id(parameter) in muon) is hidden and (id(parameter) in adamw) is not hidden


def test_frozen_parameters_are_not_trained(policy):
    frozen = policy.model.model.layers[0].mlp.down_proj.weight
    frozen.requires_grad_(False)
    before = frozen.clone()
    make_learner(policy, weight_decay=0.5).update([sequence(policy, 1.0)], 0.0, seed=0)
    assert torch.equal(frozen, before)


def test_an_unknown_optimizer_is_refused(policy):
    with pytest.raises(ValueError, match="adamw"):
        make_learner(policy, optimizer="sgd")


@pytest.mark.parametrize(
    "temperature",
    [
        1.0,
        0.7,
    ],
)
def test_on_policy_the_importance_ratio_is_one(policy, temperature):
    prompt = [1, 4, 9]
    params = SamplingParams(max_tokens=8, stop_token_ids=(), temperature=temperature)
    completion = TorchEngine(policy.model).sample([prompt], params, seed=0)[0]
    item = TrainingSequence(
        np.array([*prompt, *completion.token_ids]), 3, np.ones(8), completion.choices >= 0, completion.logprobs
    )
    metrics = make_learner(policy, temperature=temperature).update([item], 0.0, seed=0)
    assert metrics["ratio_kl"] == pytest.approx(0, abs=1e-6) and metrics["clip_fraction"] == 0


def test_the_gradient_is_that_of_the_weighted_log_likelihood(policy):
    """Against autograd on a plain forward pass; wrong old log-probabilities change nothing, as the ratio is 1."""
    trained = [True, True, False, True, True, False]
    batch = [sequence(policy, weight, trained=trained, seed=seed) for seed, weight in enumerate((1.0, -0.5, 2.0))]
    batch[1] = dataclasses.replace(batch[1], logprobs=batch[1].logprobs - 1)
    before = weights(policy)
    learner = make_learner(policy, temperature=0.7, micro_batch_tokens=12)
    found = learner.gradient(batch)
    total = 0.0
    for item in batch:
        logits = policy.model(input_ids=torch.as_tensor(item.token_ids)[None]).logits[0, 2:-1] / 0.7
        chosen = torch.log_softmax(logits, -1)[torch.arange(6), torch.as_tensor(item.token_ids[3:])]
        total = total - (chosen * torch.as_tensor(item.weights * item.trained)).sum() / (3 * 4)
    named = dict(policy.model.named_parameters())
    expected = torch.autograd.grad(total, list(named.values()))
    assert found.keys() == named.keys()
    for gradient, wanted in zip(found.values(), expected, strict=True):
        torch.testing.assert_close(gradient, wanted.float(), rtol=1e-3, atol=1e-5)
    assert torch.equal(weights(policy), before) and learner.n_updates == 0


def test_a_gradient_is_not_changed_by_the_next_one_and_changes_no_update(policy, copy_policy):
    other, batch = copy_policy(policy), [sequence(policy, 1.0)]
    learner = make_learner(policy)
    first = learner.gradient(batch)
    kept = {name: gradient.clone() for name, gradient in first.items()}
    second = learner.gradient([sequence(policy, -3.0, seed=5)])
    assert all(torch.equal(first[name], kept[name]) for name in kept)
    assert any(not torch.allclose(second[name], kept[name]) for name in kept)
    learner.update(batch, 0.0, seed=0)
    make_learner(other).update(batch, 0.0, seed=0)
    assert torch.equal(weights(policy), weights(other))


def test_the_gradient_of_nothing_is_zero(policy):
    learner = make_learner(policy)
    for batch in ([], [sequence(policy, 1.0, trained=[False] * 6)]):
        assert all(not gradient.any() for gradient in learner.gradient(batch).values())
