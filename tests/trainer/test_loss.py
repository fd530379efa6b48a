import types
from collections import defaultdict

import numpy as np
import pytest
import torch
from accelerate import Accelerator
from torch.nn.functional import cross_entropy

from mrt_pipeline.trainer.batch import TrainingSequence, collate, micro_batches
from mrt_pipeline.trainer.logprobs import token_logprobs
from mrt_pipeline.trainer.loss import policy_loss

LOW, HIGH = 0.2, 0.28


def case(seed=0, rows=4, tokens=7):
    """Log-probabilities, weights and so on in double precision; ratios on both sides of both clips, off their kinks."""
    generator = torch.Generator().manual_seed(seed)

    def uniform(low, high):
        return torch.rand(rows, tokens, generator=generator, dtype=torch.float64) * (high - low) + low

    logprobs = uniform(-3, -0.1)
    ratios = torch.tensor([0.5, 0.75, 0.85, 0.99, 1.0, 1.2, 1.25, 1.35, 2.0], dtype=torch.float64)
    ratio = ratios[torch.randint(len(ratios), (rows, tokens), generator=generator)]
    trained = torch.rand(rows, tokens, generator=generator) < 0.7
    return {
        "logprobs": logprobs,
        "weights": uniform(-1, 1),
        "trained": trained,
        "old": logprobs - ratio.log(),
        "reference": logprobs + uniform(-0.5, 0.5),
        "n": float(trained.sum()),
    }


def loss_of(c, logprobs, kl_beta=0.0, old=True):
    return policy_loss(
        logprobs, c["weights"], c["trained"], c["n"], c["old"] if old else None, c["reference"], LOW, HIGH, kl_beta
    )


def gradient(c, **kwargs):
    logprobs = c["logprobs"].clone().requires_grad_()
    loss_of(c, logprobs, **kwargs)[0].backward()
    return logprobs.grad


@pytest.mark.parametrize("kl_beta", [0.0, 0.3])
@pytest.mark.parametrize("old", [True, False])
def test_gradient_against_finite_differences(kl_beta, old):
    c, step = case(), 1e-6
    found = gradient(c, kl_beta=kl_beta, old=old)
    for index in np.ndindex(*c["logprobs"].shape):
        moved = []
        for sign in (1, -1):
            logprobs = c["logprobs"].clone()
            logprobs[index] += sign * step
            moved.append(float(loss_of(c, logprobs, kl_beta, old)[0]))
        assert float(found[index]) == pytest.approx((moved[0] - moved[1]) / (2 * step), abs=1e-8)


def test_the_clip_takes_the_gradient_only_where_the_ratio_has_gone_too_far():
    c = case()
    ratio = (c["logprobs"] - c["old"]).exp()
    too_far = ((ratio > 1 + HIGH) & (c["weights"] > 0)) | ((ratio < 1 - LOW) & (c["weights"] < 0))
    expected = torch.where(c["trained"] & ~too_far, -ratio * c["weights"] / c["n"], torch.zeros_like(ratio))
    assert torch.allclose(gradient(c), expected, atol=1e-12)
    _, sums = loss_of(c, c["logprobs"])
    assert sums["clip_fraction"] == int((too_far & c["trained"]).sum()) > 0
    beyond_but_pulled_back = ((ratio > 1 + HIGH) & (c["weights"] < 0)) | ((ratio < 1 - LOW) & (c["weights"] > 0))
    assert gradient(c)[beyond_but_pulled_back & c["trained"]].abs().min() > 0


def test_the_loss_by_hand():
    # ratios 1, 1.5, 0.5 and weights 2, 2, -1: min(2, 2), min(3, 1.28 * 2), min(-0.5, -0.8)
    logprobs = torch.tensor([[0.1, 1.5, 0.5]], dtype=torch.float64).log()
    old = torch.tensor([[0.1, 1.0, 1.0]], dtype=torch.float64).log()
    loss, sums = policy_loss(
        logprobs,
        torch.tensor([[2.0, 2.0, -1.0]], dtype=torch.float64),
        torch.ones(1, 3, dtype=torch.bool),
        3,
        old,
        None,
        LOW,
        HIGH,
    )
    assert float(loss) == sums["loss"] == pytest.approx(-(2 + 2.56 - 0.8) / 3)
    assert sums["clip_fraction"] == 2
    assert sums["ratio_kl"] == pytest.approx((0.5 - np.log(1.5)) + (-0.5 - np.log(0.5)))


def test_at_ratio_one_it_is_the_vanilla_policy_gradient():
    c = case()
    c["old"] = c["logprobs"].clone()
    expected = torch.where(c["trained"], -c["weights"] / c["n"], torch.zeros_like(c["weights"]))
    assert torch.allclose(gradient(c), expected, atol=1e-12)
    assert torch.allclose(gradient(c, old=False), expected, atol=1e-12)
    _, sums = loss_of(c, c["logprobs"])
    assert sums["clip_fraction"] == sums["ratio_kl"] == 0


def test_the_kl_term_is_zero_at_the_reference_and_pulls_back_to_it():
    c = case()
    c["weights"] = torch.zeros_like(c["weights"])
    pull = gradient(c, kl_beta=0.3)[c["trained"]]
    above = (c["logprobs"] > c["reference"])[c["trained"]]
    assert torch.all((pull > 0) == above)
    loss, sums = loss_of(c, c["logprobs"], 0.3)
    distance = (c["reference"] - c["logprobs"])[c["trained"]]
    assert sums["kl"] == pytest.approx(float((distance.exp() - distance - 1).sum()))
    assert float(loss) == pytest.approx(0.3 * sums["kl"] / c["n"])
    c["reference"] = c["logprobs"].clone()
    assert loss_of(c, c["logprobs"], 0.3)[1]["kl"] == 0 and gradient(c, kl_beta=0.3).abs().max() == 0


def test_likelihood_is_cross_entropy():
    generator = torch.Generator().manual_seed(0)
    logits = torch.randn(3, 6, 11, generator=generator, dtype=torch.float64, requires_grad=True)
    targets = torch.randint(11, (3, 6), generator=generator)
    trained = torch.rand(3, 6, generator=generator) < 0.6
    expected = cross_entropy(logits.flatten(0, 1), targets.masked_fill(~trained, -100).flatten())
    logprobs = torch.log_softmax(logits, -1).gather(2, targets[:, :, None])[:, :, 0]
    found, _ = policy_loss(logprobs, torch.ones(3, 6, dtype=torch.float64), trained, int(trained.sum()))
    assert torch.allclose(found, expected)
    assert torch.allclose(*(torch.autograd.grad(loss, logits)[0] for loss in (found, expected)))


@pytest.mark.parametrize("value", [float("inf"), float("-inf"), float("nan"), 1e30])
@pytest.mark.parametrize("old", [True, False])
def test_untrained_tokens_contribute_nothing_whatever_they_hold(value, old):
    c = case()
    expected = gradient(c, kl_beta=0.3, old=old), loss_of(c, c["logprobs"], 0.3, old)[1]
    for name in ("weights", "old", "reference", "logprobs"):
        c[name] = c[name].masked_fill(~c["trained"], value)
    assert torch.equal(gradient(c, kl_beta=0.3, old=old), expected[0])
    assert loss_of(c, c["logprobs"], 0.3, old)[1] == expected[1]


def sequences(n=6, seed=0):
    rng = np.random.default_rng(seed)
    found = []
    for _ in range(n):
        prompt, rest = rng.integers(1, 5), rng.integers(2, 12)
        found.append(
            TrainingSequence(
                rng.integers(0, 16, size=prompt + rest),
                int(prompt),
                rng.normal(size=rest),
                rng.random(rest) < 0.8,
                rng.uniform(-3.5, -2, size=rest),
            )
        )
    return found


def model_gradient(model, batch_of, max_tokens):
    model.zero_grad()
    n_tokens = sum(int(s.trained.sum()) for s in batch_of)
    total = 0.0
    for group in micro_batches(batch_of, max_tokens):
        batch = collate(group)
        logprobs, _ = token_logprobs(model, batch)
        loss, _ = policy_loss(logprobs, batch.weights, batch.trained, n_tokens, batch.logprobs)
        loss.backward()
        total += float(loss.detach())
    return total, torch.cat([p.grad.flatten() for p in model.parameters()])


@pytest.mark.parametrize("max_tokens", [1, 20, 40])
def test_splitting_into_micro_batches_does_not_change_the_gradient(letters_policy, copy_policy, max_tokens):
    model = copy_policy(letters_policy).model
    whole_loss, whole = model_gradient(model, sequences(), 10_000)
    loss, split = model_gradient(model, sequences(), max_tokens)
    assert len(micro_batches(sequences(), max_tokens)) > 1
    assert loss == pytest.approx(whole_loss, abs=1e-5)
    assert whole.norm() > 1e-2 and torch.allclose(split, whole, atol=1e-5 * float(whole.abs().max()))


@pytest.fixture(scope="module")
def trl_trainer():
    """TRL's GRPO trainer, bare: only what its loss reads."""
    grpo_trainer = pytest.importorskip("trl.trainer.grpo_trainer")

    def make(model, loss_type, beta):
        grpo_trainer.add_fused_lm_head(model, outputs=("log_probs", "entropy"))
        trainer = object.__new__(grpo_trainer.GRPOTrainer)
        trainer.__dict__.update(
            model=model,
            beta=beta,
            loss_type=loss_type,
            epsilon_low=LOW,
            epsilon_high=HIGH,
            temperature=1.0,
            importance_sampling_level="token",
            top_entropy_quantile=1.0,
            off_policy_mask_threshold=None,
            use_vllm=False,
            aux_loss_enabled=False,
            _entropy_bonus_enabled=False,
            use_liger_kernel=False,
            current_gradient_accumulation_steps=1,
            max_completion_length=64,
            model_kwarg_keys={"logits_to_keep"},
            accelerator=Accelerator(),
            _metrics={"train": defaultdict(list), "eval": defaultdict(list)},
            args=types.SimpleNamespace(delta=None, use_bias_correction_kl=False, steps_per_generation=1),
        )
        return trainer

    return make


@pytest.mark.parametrize("loss_type", ["bnpo", "dapo"])
@pytest.mark.parametrize("beta", [0.0, 0.2])
@pytest.mark.parametrize("per_token", [False, True])
def test_the_loss_equals_trl(letters_policy, copy_policy, trl_trainer, loss_type, beta, per_token):
    model = copy_policy(letters_policy).model.train()
    rng = np.random.default_rng(1)
    prompt_length, rows = 3, [(4, 0.6), (9, -0.3), (1, 0.9), (6, -1.2)]
    longest = max(n for n, _ in rows)
    batch_of, completion, mask = [], torch.zeros(4, longest, dtype=torch.long), torch.zeros(4, longest)
    for row, (n, advantage) in enumerate(rows):
        tokens = rng.integers(0, 16, size=prompt_length + n)
        completion[row, :n], mask[row, :n] = torch.from_numpy(tokens[prompt_length:]), 1
        weights = advantage + per_token * rng.normal(size=n)
        batch_of.append(TrainingSequence(tokens, prompt_length, weights, np.ones(n, bool), np.zeros(n)))
    batch = collate(batch_of)
    with torch.no_grad():
        current, _ = token_logprobs(model, batch)
    shift = torch.from_numpy(rng.choice([-0.5, -0.1, 0.0, 0.1, 0.5], size=current.shape)).float()
    old, reference = current + shift, current - 0.7 * shift

    logprobs, _ = token_logprobs(model, batch)
    loss, sums = policy_loss(logprobs, batch.weights, batch.trained, int(mask.sum()), old, reference, LOW, HIGH, beta)
    trainer = trl_trainer(model, loss_type, beta)
    expected = trainer._compute_loss(
        model,
        {
            "prompt_ids": batch.inputs["input_ids"][:, :prompt_length],
            "prompt_mask": torch.ones(4, prompt_length),
            "completion_ids": completion,
            "completion_mask": mask,
            "advantages": batch.weights if per_token else torch.tensor([advantage for _, advantage in rows]),
            "old_per_token_logps": old,
            "ref_per_token_logps": reference,
            "num_items_in_batch": mask.sum(),
        },
    )

    assert float(loss.detach()) == pytest.approx(float(expected.detach()), abs=1e-5)
    assert abs(float(expected.detach())) > 1e-2 and 0 < sums["clip_fraction"] < int(mask.sum())
    ours, theirs = (
        [g.flatten() for g in torch.autograd.grad(each, list(model.parameters()))] for each in (loss, expected)
    )
    ours, theirs = torch.cat(ours), torch.cat(theirs)
    assert torch.allclose(ours, theirs, atol=1e-5 * float(theirs.abs().max()))
    if beta:
        assert trainer._metrics["train"]["kl"][0] == pytest.approx(sums["kl"] / float(mask.sum()), abs=1e-5)
