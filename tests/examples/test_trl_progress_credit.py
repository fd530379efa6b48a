"""TRL's real trainer with progress credit: what reaches its loss, and that its loss is this project's."""

import importlib.util
from functools import partial
from pathlib import Path

import numpy as np
import pytest
import torch
from transformers import TrainerCallback

from mrt_pipeline.mrt import credit
from mrt_pipeline.mrt.episodes import episode_boundaries
from mrt_pipeline.trainer.batch import TrainingSequence, collate
from mrt_pipeline.trainer.logprobs import token_logprobs
from mrt_pipeline.trainer.loss import policy_loss

trl = pytest.importorskip("trl")

EXAMPLE = Path(__file__).parents[2] / "examples/trl_progress_credit.py"
LOW, HIGH = 0.2, 0.28
GROUP, TOKENS = 8, 20  # some thoughts are longer, so that they are cut


@pytest.fixture(scope="module")
def example():
    spec = importlib.util.spec_from_file_location("trl_progress_credit", EXAMPLE)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope="module")
def train(example, task, known_problems, warm_policy, copy_policy, tmp_path_factory):
    """Trains a copy of the policy: two groups generated once, two optimiser steps on them, two micro-batches each."""

    def run(kind, **kwargs):
        policy, problems = copy_policy(warm_policy), {problem.problem_id: problem for problem in known_problems}
        config = trl.GRPOConfig(
            str(tmp_path_factory.mktemp("trl")),
            max_steps=2,
            num_iterations=2,
            per_device_train_batch_size=GROUP,
            gradient_accumulation_steps=2,
            num_generations=GROUP,
            max_completion_length=TOKENS,
            learning_rate=2e-2,
            lr_scheduler_type="constant",
            max_grad_norm=0.0,
            loss_type="dapo",
            epsilon=LOW,
            epsilon_high=HIGH,
            scale_rewards="none",
            seed=3,
            **example.ON_A_CPU,
        )
        arguments = example.toy_arguments(task, problems, policy)
        if kind is not trl.GRPOTrainer:
            kwargs.setdefault("prove", example.exact_answers(policy, task, problems))
            kwargs["segment"] = example.think_segment(policy.template)
        trainer = kind(**arguments, args=config, **kwargs)
        if kind is not trl.GRPOTrainer:
            trainer.add_callback(Gradients(trainer))
        trainer.train()
        return trainer

    return run


@pytest.fixture(scope="module")
def recorder(example):
    class Recorder(example.ProgressTrainer):
        """Keeps what was generated, and what each call of the loss was given and returned."""

        def __init__(self, *args, **kwargs):
            super().__init__(*args, **kwargs)
            self.generated, self.losses, self.steps = [], [], []

        def _generate_and_score_completions(self, inputs):
            batch = super()._generate_and_score_completions(inputs)
            self.generated.append((inputs, batch))
            return batch

        def compute_loss(self, model, inputs, *args, **kwargs):
            loss = super().compute_loss(model, inputs, *args, **kwargs)
            self.losses.append((inputs, float(loss.detach())))
            return loss

    return Recorder


class Gradients(TrainerCallback):
    """Before each optimiser step: loss and gradient that TRL accumulated, and those of `policy_loss`."""

    def __init__(self, trainer):
        self.trainer, self.seen = trainer, 0

    def on_pre_optimizer_step(self, args, state, control, model=None, **kwargs):
        parts = self.trainer.losses[self.seen :]
        self.seen = len(self.trainer.losses)
        theirs = torch.cat([parameter.grad.flatten() for parameter in model.parameters()])
        loss, clipped = our_loss(model, [inputs for inputs, _ in parts])
        ours = torch.cat([grad.flatten() for grad in torch.autograd.grad(loss, list(model.parameters()))])
        self.trainer.steps.append((float(loss.detach()), sum(value for _, value in parts), ours, theirs, clipped))


def our_loss(model, parts):
    """`policy_loss` of all micro-batches of an optimiser step as one batch, on sequences made from TRL's tensors."""
    sequences = []
    for inputs in parts:
        for row in range(len(inputs["completion_ids"])):
            prompt = inputs["prompt_ids"][row][inputs["prompt_mask"][row].bool()]
            kept = inputs["completion_mask"][row].bool()
            sequences.append(
                TrainingSequence(
                    torch.cat([prompt, inputs["completion_ids"][row][kept]]).numpy(),
                    len(prompt),
                    inputs["advantages"][row][kept].numpy(),
                    np.ones(int(kept.sum()), dtype=bool),
                    inputs["old_per_token_logps"][row][kept].numpy(),
                )
            )
    batch = collate(sequences)
    logprobs, _ = token_logprobs(model, batch)
    n_tokens = int(batch.trained.sum())
    loss, sums = policy_loss(logprobs, batch.weights, batch.trained, n_tokens, batch.logprobs, None, LOW, HIGH)
    return loss, sums["clip_fraction"]


@pytest.fixture(scope="module")
def trained(train, recorder):
    return train(recorder, rule=partial(credit.mrt_online, gamma=0.5))


@pytest.fixture(scope="module")
def by_hand(trained, warm_policy, task, known_problems, continuation_logprob):
    """What was generated, and the arrays of `credit.mrt_online`, from nothing but the tokens."""
    (inputs, batch), tokenizer = trained.generated[0], warm_policy.tokenizer
    marker, close = tokenizer.convert_tokens_to_ids(["wait", "</think>"])
    problems = {problem.problem_id: problem for problem in known_problems}
    known, rows, arrays = {}, [], []
    for row, item in enumerate(inputs):
        problem, prompt = problems[item["problem_id"]], batch["prompt_ids"][row].tolist()
        ids = batch["completion_ids"][row, : batch["completion_mask"][row].sum()].tolist()
        answered, ended = close in ids, ids[-1] == tokenizer.eos_token_id
        n = ids.index(close) if answered else len(ids) - ended
        cuts = episode_boundaries(ids[:n], {marker})
        answer = tokenizer.decode(ids[n + 1 : -1]) if answered and ended else ""
        accepted = [[*tokenizer.encode(a, add_special_tokens=False), tokenizer.eos_token_id] for a in problem.answers]
        for cut in cuts:
            context = (*prompt, *ids[:cut], close)
            if context not in known:
                logs = [continuation_logprob(warm_policy.model, context, tokens) for tokens in accepted]
                known[context] = float(np.exp(logs).sum())
        success = [known[(*prompt, *ids[:cut], close)] for cut in cuts]
        rows.append((prompt, ids, n))
        arrays.append((task.grade(problem, answer).reward, item["problem_id"], cuts, success, answered))
    return rows, [list(values) for values in zip(*arrays, strict=True)]


def test_what_reaches_the_loss_is_the_credit(trained, by_hand):
    rows, (rewards, groups, boundaries, success, answered) = by_hand
    assert 0 < sum(answered) < len(answered) == 2 * GROUP and 0 < sum(rewards) < len(rewards)  # all kinds are there
    assert max(np.ptp(j) for j in success) > 0.01  # progress is scaled, so the bonus is not small
    found = credit.mrt_online(rewards, groups, boundaries, success, gamma=0.5, answered=answered)
    assert max(np.ptp(values) for values in found.thought if len(values)) > 0.5
    expected = {}
    for (prompt, ids, n), thought, stop, answer in zip(rows, found.thought, found.stop, found.answer, strict=True):
        values = [*thought, *[stop] * (len(ids) > n), *[answer] * (len(ids) - n - 1)]
        assert len(values) == len(ids)
        expected[tuple(prompt), tuple(ids)] = values
    assert len(trained.losses) == 4 and len(trained.generated) == 1
    for inputs, _ in trained.losses:
        for row, advantages in enumerate(inputs["advantages"]):
            ids = inputs["completion_ids"][row, : inputs["completion_mask"][row].sum()].tolist()
            values = expected[tuple(inputs["prompt_ids"][row].tolist()), tuple(ids)]
            assert advantages[: len(ids)].tolist() == pytest.approx(values, abs=1e-3)
            assert not advantages[len(ids) :].any()


def test_regret_is_logged(trained, by_hand):
    _, (_, _, boundaries, success, _) = by_hand
    heights = []
    for cuts, j in zip(boundaries, success, strict=True):
        grid = np.linspace(0, TOKENS, 200_001)
        heights.append(np.interp(grid, [0, *cuts], [0, *j]).mean())
    logged = [row["regret"] for row in trained.state.log_history if "regret" in row]
    assert logged[0] == pytest.approx(1 - np.mean(heights), abs=1e-3)


def test_trl_s_loss_and_gradient_are_those_of_policy_loss(trained):
    assert len(trained.steps) == 2
    for our_value, their_value, ours, theirs, _ in trained.steps:
        assert our_value == pytest.approx(their_value, abs=1e-5)
        assert theirs.norm() > 1e-2 and torch.allclose(ours, theirs, atol=1e-4 * float(theirs.abs().max()))
    assert trained.steps[0][-1] == 0 and trained.steps[1][-1] > 0  # the second step is off policy, beyond the clip


def test_constant_success_is_plain_grpo(train, recorder, warm_policy):
    def constant(rows, prompts, completions, boundaries):
        return [np.full(len(cuts), 0.3) for cuts in boundaries]

    found = train(recorder, prove=constant, rule=partial(credit.mrt_online, expected_outcome=False))
    plain = train(trl.GRPOTrainer)
    (_, batch), trl_s = found.generated[0], torch.tensor(list(found._logs["advantages"]))
    expected = trl_s[:, None] * batch["completion_mask"]
    assert expected.abs().max() > 0.1 and torch.allclose(batch["advantages"], expected, atol=1e-6)
    parameters = [torch.cat([p.detach().flatten() for p in t.model.parameters()]) for t in (found, plain, warm_policy)]
    assert torch.allclose(parameters[0], parameters[1], atol=1e-6)
    assert not torch.allclose(parameters[0], parameters[2], atol=1e-2)


def test_a_completion_is_segmented_however_it_ends(example, warm_policy):
    marker, close, end, other = warm_policy.tokenizer.convert_tokens_to_ids(["wait", "</think>", "<eos>", "7"])
    segment = example.think_segment(warm_policy.template)
    thought = [marker, other, marker, other, other]
    for rest, has_answer in (([close, other, end], True), ([close], True), ([end], False), ([], False)):
        boundaries, answered = segment([*thought, *rest])
        assert boundaries.tolist() == [0, 2, 5] and answered is has_answer
    assert segment([close, other, end])[0].tolist() == [0]


def test_what_it_would_ignore_is_refused(example, train):
    class Scaled(example.ProgressTrainer):
        def __init__(self, *args, **kwargs):
            kwargs["args"].scale_rewards = "group"
            super().__init__(*args, **kwargs)

    with pytest.raises(ValueError, match="scale_rewards"):
        train(Scaled)


def test_the_example_runs(example, capsys):
    example.main(steps=2, warm_steps=5)
    lines = capsys.readouterr().out.splitlines()
    assert [line.split()[:3:2] for line in lines if line.startswith("step")] == [["step", "reward"]] * 2
