import numpy as np
import pytest
from engine_checks import check_logprobs, random_queries, same

from mrt_pipeline.engines import torch_engine
from mrt_pipeline.engines.base import SamplingParams
from mrt_pipeline.engines.torch_engine import TorchEngine

STOPS = (3, 5, 15)


@pytest.fixture(scope="module")
def engine(letters_policy):
    return TorchEngine(letters_policy.model)


@pytest.fixture(scope="module")
def model(letters_policy):
    return letters_policy.model


def test_the_batch_size_changes_nothing_for_greedy_sampling(model, prompts):
    params = SamplingParams(max_tokens=10, stop_token_ids=STOPS, temperature=0, n=2)
    expected = TorchEngine(model).sample(prompts, params, seed=0)
    for batch_size in (1, 3, 7):
        assert same(expected, TorchEngine(model, batch_size=batch_size).sample(prompts, params, seed=0), atol=1e-4)


def test_the_seed_repeats_and_matters(model, prompts):
    params = SamplingParams(max_tokens=10, stop_token_ids=STOPS, n=3)
    engine = TorchEngine(model, batch_size=8)
    first, again, other = (engine.sample(prompts, params, seed=seed) for seed in (4, 4, 5))
    assert same(first, again)
    assert not same(first, other)


def test_batches_of_one_call_do_not_repeat_their_noise(model):
    engine = TorchEngine(model, batch_size=1)
    found = engine.sample([[3, 4]] * 6, SamplingParams(max_tokens=8, stop_token_ids=()), seed=0)
    assert len({tuple(c.token_ids) for c in found}) > 1


@pytest.mark.parametrize("extensions", [(), ((7,),), ((7, 10), (4,))])
def test_dropping_finished_rows_changes_nothing(monkeypatch, engine, prompts, extensions):
    params = SamplingParams(max_tokens=14, stop_token_ids=STOPS, temperature=0, n=2, extensions=extensions)
    monkeypatch.setattr(torch_engine, "_COMPACT_BELOW", 0)
    least = [0, 3, 14, 0, 5, 1] if extensions else 0
    expected = engine.sample(prompts, params, seed=0, min_tokens=least)
    assert len({len(c.token_ids) for c in expected}) > 2
    for share in (0.75, 2):  # 2: after every token
        monkeypatch.setattr(torch_engine, "_COMPACT_BELOW", share)
        assert same(expected, engine.sample(prompts, params, seed=0, min_tokens=least), atol=1e-4)


@pytest.mark.parametrize("share", [0, 2])
def test_sampled_logprobs_are_right_however_rows_are_dropped(monkeypatch, engine, model, prompts, all_logprobs, share):
    monkeypatch.setattr(torch_engine, "_COMPACT_BELOW", share)
    params = SamplingParams(max_tokens=10, stop_token_ids=STOPS, n=3, extensions=((7, 10),))
    for i, completion in enumerate(engine.sample(prompts, params, seed=0, min_tokens=4)):
        check_logprobs(all_logprobs, model, prompts[i // 3], completion, 1.0)


@pytest.mark.parametrize("training", [True, False])
def test_the_mode_of_the_model_is_left_as_it_was(letters_policy, copy_policy, training):
    model = copy_policy(letters_policy).model.train(training)
    engine = TorchEngine(model)
    engine.sample([[1, 2]], SamplingParams(max_tokens=2, stop_token_ids=()), seed=0)
    assert model.training is training
    engine.score([[1, 2]], [[1]], [3], [[[4]]])
    assert model.training is training


@pytest.mark.parametrize("suffix", [[], [5], [5, 11], [5, 11, 2]])
@pytest.mark.parametrize("score_tokens", [1, 150, 40_000])
def test_scores_equal_separate_forward_passes(model, continuation_logprob, suffix, score_tokens):
    traces, cuts, answers = random_queries(np.random.default_rng(len(suffix)), 5)
    answers[0] = [[1, 2], [1, 2], [1, 2, 0], [1], [2]]  # repeated, and one the start of another
    answers[1] = answers[1][:2]
    cuts[2] = np.array([1, len(traces[2])])
    found = TorchEngine(model, score_tokens=score_tokens).score(traces, cuts, suffix, answers)
    for trace, cut, answer, scores in zip(traces, cuts, answers, found, strict=True):
        assert scores.shape == (len(cut), len(answer)) and scores.dtype == np.float64
        expected = [[continuation_logprob(model, [*trace[:k], *suffix], c) for c in answer] for k in cut]
        assert np.allclose(scores, expected, atol=1e-4)


def test_a_failed_score_leaves_the_mode_as_it_was(letters_policy, copy_policy):
    model = copy_policy(letters_policy).model.train()
    with pytest.raises(ValueError, match="cuts"):
        TorchEngine(model).score([[3, 8]], [[3]], [5], [[[4]]])
    assert model.training


def test_a_scoring_pass_holds_at_most_score_tokens(letters_policy, copy_policy):
    model = copy_policy(letters_policy).model
    shapes = []
    model.register_forward_pre_hook(lambda _, args, kwargs: shapes.append(kwargs["input_ids"].shape), with_kwargs=True)
    long_trace, many_answers = [1] * 40, [[a, b] for a in range(6) for b in range(6)]
    engine = TorchEngine(model, score_tokens=100)
    engine.score([long_trace, [1, 2]], [[40], list(range(1, 3)) * 3], [5], [[[4]], many_answers])
    assert all(rows == 1 or rows * length <= 100 for rows, length in shapes)
