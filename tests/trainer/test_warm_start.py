import numpy as np
import pytest
import torch

from mrt_pipeline.policy.template import encode_prompt
from mrt_pipeline.tasks.base import SearchTrace
from mrt_pipeline.trainer import warm_start as module
from mrt_pipeline.trainer.learner import LearnerParams
from mrt_pipeline.trainer.warm_start import warm_start

SETTINGS = LearnerParams(learning_rate=3e-3)


def silent(metrics, step):
    pass


class FixedTraces:
    """Traces cut at their third symbol or not, turn by turn."""

    def __init__(self):
        self.n = 0

    def search_trace(self, problem, rng):
        self.n += 1
        text = "wait 7 - 3 =4 * 12 =48 high"
        return SearchTrace(text[: len("wait 7 -")] if self.n % 2 else text, problem.answers[0], cut=bool(self.n % 2))


@pytest.fixture
def batches(monkeypatch):
    """Every batch that the learner is given."""
    seen = []

    class Recorder(module.Learner):
        def update(self, sequences, fraction_done, seed):
            seen.append((sequences, fraction_done))
            return {"loss": 0.0}

    monkeypatch.setattr(module, "Learner", Recorder)
    return seen


def test_training_sequences(batches, make_policy, problems):
    policy = make_policy()
    tokenizer, template = policy.tokenizer, policy.template
    warm_start(policy, FixedTraces(), problems[:3], SETTINGS, steps=4, batch_size=5, seed=0, log=silent)
    assert [len(sequences) for sequences, _ in batches] == [5] * 4
    assert [fraction for _, fraction in batches] == [0, 0.25, 0.5, 0.75]
    n_cut = 0
    for item in (item for sequences, _ in batches for item in sequences):
        text = tokenizer.decode(item.token_ids)
        problem = next(p for p in problems[:3] if f"{p.question} <think>" in text)
        assert item.prompt_length == len(encode_prompt(tokenizer, template, problem.question))
        assert text.endswith(f" </think> {problem.answers[0]} <eos>")
        assert item.logprobs is None and np.all(item.weights == 1)
        rest = item.token_ids[item.prompt_length :]
        untrained = rest[~item.trained].tolist()
        cut = "=4" not in text
        assert untrained == ([*template.close_ids] if cut else [])  # stopping after a cut thought is not to be imitated
        n_cut += cut
    assert n_cut


def test_fresh_traces_and_all_problems_are_used(batches, make_policy, task, problems):
    warm_start(make_policy(), task, problems[:6], SETTINGS, steps=20, batch_size=8, seed=0, log=silent)
    texts = [tuple(item.token_ids) for sequences, _ in batches for item in sequences]
    assert len(set(texts)) > 0.9 * len(texts)
    assert len({text[1:6] for text in texts}) == 6


def test_the_loss_falls(make_policy, task, problems):
    policy, losses = make_policy(), []
    warm_start(
        policy,
        task,
        problems[:2],
        SETTINGS,
        steps=12,
        batch_size=8,
        seed=0,
        log_every=1,
        log=lambda metrics, step: losses.append(metrics["loss"]),
    )
    assert losses[-1] < losses[0] - 0.5


def test_the_seed_repeats_and_matters(make_policy, task, problems):
    def trained(seed):
        policy = make_policy()
        warm_start(policy, task, problems[:4], SETTINGS, steps=3, batch_size=4, seed=seed, log=silent)
        return torch.cat([p.detach().flatten() for p in policy.model.parameters()])

    assert torch.equal(trained(0), trained(0))
    assert not torch.equal(trained(0), trained(1))


def test_logged_metrics_are_means_since_the_last_call(monkeypatch, make_policy, task, problems):
    values, logged = iter([1.0, 3.0, 5.0, 7.0, 11.0]), []
    monkeypatch.setattr(module.Learner, "update", lambda *args, **kwargs: {"loss": next(values)})
    last = warm_start(
        make_policy(),
        task,
        problems[:2],
        SETTINGS,
        steps=5,
        batch_size=2,
        seed=0,
        log_every=2,
        log=lambda metrics, step: logged.append(metrics["loss"]),
    )
    assert logged == [2, 6, 11] and last["loss"] == 11


def test_log_is_called_now_and_then_and_at_the_end(batches, make_policy, task, problems):
    steps = []
    metrics = warm_start(
        make_policy(),
        task,
        problems[:2],
        SETTINGS,
        steps=7,
        batch_size=2,
        seed=0,
        log_every=3,
        log=lambda metrics, step: steps.append(step),
    )
    assert steps == [3, 6, 7]
    assert metrics["tokens_per_second"] > 0
