"""What was sampled is not read twice, and what is remembered is never of other weights."""

import numpy as np
import pytest
import torch
from engine_checks import check_logprobs, same

from mrt_pipeline.engines import memory
from mrt_pipeline.engines.base import SamplingParams
from mrt_pipeline.engines.decoding import FusedDecoder
from mrt_pipeline.engines.memory import Memory
from mrt_pipeline.engines.torch_engine import TorchEngine

STOPS = (3, 5, 15)
THINK = SamplingParams(max_tokens=14, stop_token_ids=STOPS, n=3)
ANSWER = SamplingParams(max_tokens=6, stop_token_ids=(4,), n=2)
CLOSE = (5, 7)


@pytest.fixture
def model(letters_policy, copy_policy):
    return copy_policy(letters_policy).model


@pytest.fixture
def resumed(monkeypatch):
    """How many rows were resumed, call by call."""
    seen, resume = [], FusedDecoder.resume

    def counted(self, known, ids):
        seen.append(len(known))
        return resume(self, known, ids)

    monkeypatch.setattr(FusedDecoder, "resume", counted)
    return seen


def thoughts_of(engine, prompts, seed=0):
    found = engine.sample(prompts, THINK, seed)
    return [[*prompts[i // THINK.n], *completion.token_ids] for i, completion in enumerate(found)]


def test_answers_after_a_thought_are_those_of_an_engine_that_reads_it_anew(model, prompts, all_logprobs, resumed):
    engine = TorchEngine(model)
    # Closes of different lengths, after thoughts of different lengths.
    contexts = [[*thought, *CLOSE[: 1 + i % 2]] for i, thought in enumerate(thoughts_of(engine, prompts))]
    found = engine.sample(contexts, ANSWER, seed=1)
    assert resumed == [len(contexts)]
    assert same(found, TorchEngine(model).sample(contexts, ANSWER, seed=1), atol=1e-4)
    for i, completion in enumerate(found):
        check_logprobs(all_logprobs, model, contexts[i // 2], completion, 1.0)


def test_batches_of_which_all_is_known_are_resumed(model, prompts, resumed):
    engine = TorchEngine(model, batch_size=4)
    contexts = [[*thought, *CLOSE] for thought in thoughts_of(engine, prompts)]
    contexts[5] = [*contexts[5][:1], 9, *contexts[5][1:]]  # in the third batch of two
    engine.sample(contexts, ANSWER, seed=1)
    assert resumed == [2] * 8


def test_scores_are_those_of_an_engine_that_reads_the_traces_anew(model, prompts, monkeypatch):
    engine, found = TorchEngine(model), []
    traces = thoughts_of(engine, prompts)
    find = Memory.find
    monkeypatch.setattr(Memory, "find", lambda *args, **kwargs: found.append(find(*args, **kwargs)) or found[-1])
    rng = np.random.default_rng(0)
    cuts = [sorted({len(trace), *rng.integers(1, len(trace) + 1, 3)}) for trace in traces]
    answers = [[[1, 2, 4], [1, 3], [8]][: 1 + i % 3] for i in range(len(traces))]
    for suffix in (CLOSE, ()):
        found.clear()
        scores = engine.score(traces, cuts, suffix, answers)
        assert found and all(known is not None for known in found)
        expected = TorchEngine(model).score(traces, cuts, suffix, answers)
        for one, other in zip(scores, expected, strict=True):
            np.testing.assert_allclose(one, other, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("name", ["embed_tokens", "q_proj", "v_proj", "o_proj", "up_proj", "down_proj", "layernorm"])
def test_other_weights_make_it_forget(model, prompts, resumed, name):
    engine = TorchEngine(model)
    contexts = [[*thought, *CLOSE] for thought in thoughts_of(engine, prompts)]
    weight = next(parameter for full, parameter in model.named_parameters() if name in full)
    with torch.no_grad():
        weight.view(-1)[7] += 0.5
    found = engine.sample(contexts, ANSWER, seed=1)
    assert resumed == []
    assert same(found, TorchEngine(model).sample(contexts, ANSWER, seed=1))


def test_what_does_not_fit_is_not_remembered(model, prompts, resumed, monkeypatch):
    for name in ("MOST_BYTES", "MOST_WEIGHTS"):
        with monkeypatch.context() as patch:
            patch.setattr(memory, name, 1_000)
            engine = TorchEngine(model)
            contexts = [[*thought, *CLOSE] for thought in thoughts_of(engine, prompts)]
            found = engine.sample(contexts, ANSWER, seed=1)
            assert same(found, TorchEngine(model).sample(contexts, ANSWER, seed=1))
    assert resumed == []


def test_other_thoughts_take_the_place_of_the_first_ones(model, prompts, resumed):
    engine = TorchEngine(model)
    old = [[*thought, *CLOSE] for thought in thoughts_of(engine, prompts)]
    thoughts_of(engine, prompts[::-1], seed=1)
    engine.sample(old[:3], ANSWER, seed=1)
    assert resumed == []


def test_thoughts_that_were_forced_on_are_remembered_as_they_stand(model, prompts, all_logprobs, resumed):
    params = SamplingParams(max_tokens=12, stop_token_ids=STOPS, n=2, extensions=((7, 10, 1),))
    engine = TorchEngine(model)
    found = engine.sample(prompts, params, seed=0, min_tokens=9)
    contexts = [[*prompts[i // 2], *completion.token_ids, *CLOSE] for i, completion in enumerate(found)]
    for i, completion in enumerate(engine.sample(contexts, ANSWER, seed=1)):
        check_logprobs(all_logprobs, model, contexts[i // 2], completion, 1.0)
    assert resumed == [len(contexts)]
