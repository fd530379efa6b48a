import dataclasses

import numpy as np
import pytest

from mrt_pipeline.errors import InputError
from mrt_pipeline.policy.template import encode_prompt
from mrt_pipeline.rollouts.prover import ExactProver, Query, SampledProver

EXACT = ExactProver()


@pytest.fixture(scope="module")
def queries(task, warm_policy, known_problems):
    rng = np.random.default_rng(0)
    found = []
    for problem in known_problems:
        prompt = np.array(encode_prompt(warm_policy.tokenizer, warm_policy.template, problem.question))
        chains = task.chains(tuple(problem.metadata["numbers"]))
        text = " ".join(chains[i].attempt(problem.metadata["target"]) for i in rng.integers(len(chains), size=2))
        thought = np.array(warm_policy.tokenizer.encode(text, add_special_tokens=False))
        found.append(Query(problem, prompt, thought, np.array([0, 4, 9, len(thought)])))
    return found


def with_answers(queries, answers):
    return [
        dataclasses.replace(query, problem=dataclasses.replace(query.problem, answers=tuple(answers)))
        for query in queries
    ]


def brute_force(policy, query, continuation_logprob, stop_phrase):
    """Sum over the listed answers of their probability, each by its own forward pass."""
    return [
        sum(
            np.exp(
                continuation_logprob(
                    policy.model,
                    [*query.prompt, *query.thought[:cut], *stop_phrase],
                    [*policy.tokenizer.encode(answer, add_special_tokens=False), policy.template.eos_id],
                )
            )
            for answer in query.problem.answers
        )
        for cut in query.cuts
    ]


@pytest.mark.parametrize("phrase", ["</think>", "low high </think>"])
def test_exact_equals_brute_force_enumeration(make_actor, warm_policy, queries, continuation_logprob, phrase):
    stop_phrase = tuple(warm_policy.tokenizer.encode(phrase, add_special_tokens=False))
    template = dataclasses.replace(warm_policy.template, stop_phrase=stop_phrase)
    found = EXACT.success(make_actor(warm_policy, template=template), queries)
    for query, success in zip(queries, found, strict=True):
        expected = brute_force(warm_policy, query, continuation_logprob, stop_phrase)
        assert np.allclose(success.mean, expected, atol=1e-4)
        assert success.sem.tolist() == [0.0] * len(query.cuts)
        assert success.n_tokens > len(query.prompt) + len(query.thought)
    if phrase == "</think>":  # what the policy knows: J is away from both ends
        assert all(0.02 < value < 0.98 for success in found for value in success.mean)


def test_exact_and_sampled_agree(warm_actor, queries):
    n = 4000
    truth = np.concatenate([success.mean for success in EXACT.success(warm_actor, queries)])
    sampled = SampledProver(n_answers=n).success(warm_actor, queries, seed=1)
    found = np.concatenate([success.mean for success in sampled])
    # Eight comparisons at |z| < 4.5.
    assert np.all(np.abs(found - truth) < 4.5 * np.sqrt(truth * (1 - truth) / n))
    assert truth.max() > 0.05


def test_an_answer_outside_the_list_adds_nothing_and_each_inside_its_own_probability(
    warm_actor, queries, warm_policy, continuation_logprob
):
    answers = queries[0].problem.answers
    query = queries[:1]
    parts = [EXACT.success(warm_actor, with_answers(query, [answer]))[0].mean for answer in answers]
    both = EXACT.success(warm_actor, query)[0].mean
    assert np.allclose(sum(parts), both, atol=1e-6)
    assert np.allclose(EXACT.success(warm_actor, with_answers(query, []))[0].mean, 0)
    wrong = EXACT.success(warm_actor, with_answers(query, [*answers, "1 - 1"]))[0].mean
    expected = np.exp(
        continuation_logprob(
            warm_policy.model,
            [*query[0].prompt, *query[0].thought, *warm_policy.template.stop_phrase],
            [*warm_policy.tokenizer.encode("1 - 1", add_special_tokens=False), warm_policy.template.eos_id],
        )
    )
    assert wrong[-1] - both[-1] == pytest.approx(expected, abs=1e-6)


def test_the_order_of_answers_and_queries_does_not_matter(warm_actor, queries):
    forward = EXACT.success(warm_actor, queries)
    backward = EXACT.success(warm_actor, with_answers(queries[:1], queries[0].problem.answers[::-1]))
    assert np.allclose(forward[0].mean, backward[0].mean, atol=1e-6)
    swapped = EXACT.success(warm_actor, queries[::-1])
    assert np.allclose(forward[1].mean, swapped[0].mean, atol=1e-6)


def test_exact_is_a_probability_even_if_answers_repeat(warm_actor, queries):
    repeated = with_answers(queries, queries[0].problem.answers * 200)
    assert all(success.mean.max() <= 1 and success.mean.min() >= 0 for success in EXACT.success(warm_actor, repeated))


def test_the_end_token_belongs_to_an_answer(warm_actor, queries, warm_policy, continuation_logprob):
    query = queries[0]
    success = EXACT.success(warm_actor, with_answers([query], query.problem.answers[:1]))[0]
    answer = warm_policy.tokenizer.encode(query.problem.answers[0], add_special_tokens=False)
    without = np.exp(
        continuation_logprob(
            warm_policy.model, [*query.prompt, *query.thought, *warm_policy.template.stop_phrase], answer
        )
    )
    assert success.mean[-1] < without


def test_no_queries_no_answers(warm_actor):
    assert EXACT.success(warm_actor, []) == []
    assert SampledProver(n_answers=2).success(warm_actor, []) == []


def test_sampled_counts_right_answers_that_end(scripted_engine, make_completion, make_actor, warm_policy, queries):
    tokenizer, eos = warm_policy.tokenizer, warm_policy.template.eos_id

    def reply(text, ends=True):
        return make_completion(tokenizer.encode(text, add_special_tokens=False), eos if ends else None)

    right = queries[0].problem.answers[0]
    query = dataclasses.replace(queries[0], cuts=np.array([0, 9]))
    engine = scripted_engine(
        [reply(right), reply(right, ends=False), reply("1 - 1"), reply(right), *(reply("1 + wait") for _ in range(4))]
    )
    actor = make_actor(warm_policy, engine, temperature=0.5)
    success = SampledProver(n_answers=4).success(actor, [query], seed=9)[0]
    assert success.mean.tolist() == [0.5, 0.0]
    assert success.sem.tolist() == [pytest.approx(np.sqrt(0.5 * 0.5 / 4)), 0.0]
    asked, params = engine.calls[0], engine.calls[0]["params"]
    stop = list(warm_policy.template.stop_phrase)
    assert asked["prompts"] == [[*query.prompt, *stop], [*query.prompt, *query.thought[:9], *stop]]
    assert (params.n, params.max_tokens, params.temperature, asked["seed"]) == (4, 6, 0.5, 9)


def test_sampled_tokens_are_counted(scripted_engine, make_completion, make_actor, warm_policy, queries):
    engine = scripted_engine([make_completion([7, 8], warm_policy.template.eos_id), make_completion([7, 8, 9])])
    query = dataclasses.replace(queries[0], cuts=np.array([0]))
    actor = make_actor(warm_policy, engine, answer_tokens=3)
    assert SampledProver(n_answers=2).success(actor, [query])[0].n_tokens == 3 + 3


def test_the_seed_of_sampled_repeats(warm_actor, queries):
    prover = SampledProver(n_answers=50)
    first, again, other = (
        np.concatenate([s.mean for s in prover.success(warm_actor, queries, seed)]) for seed in (0, 0, 1)
    )
    assert np.array_equal(first, again)
    assert not np.array_equal(first, other)


def test_the_exact_prover_refuses_a_policy_that_samples_greedily(warm_actor, queries):
    greedy = dataclasses.replace(warm_actor, limits=warm_actor.limits.model_copy(update={"temperature": 0.0}))
    with pytest.raises(InputError, match="temperature 0"):
        EXACT.success(greedy, queries)
    assert len(SampledProver(n_answers=2).success(greedy, queries)) == len(queries)


class Counting:
    """A task that says how often it was asked to grade."""

    def __init__(self, task):
        self.task, self.calls = task, []

    def __getattr__(self, name):
        return getattr(self.task, name)

    def grade_all(self, problems, answers):
        self.calls.append(len(answers))
        return self.task.grade_all(problems, answers)


def test_all_answers_are_graded_at_once(make_actor, warm_policy, task, queries, known_problems):
    counting = Counting(task)
    actor = make_actor(warm_policy, game=counting)
    SampledProver(n_answers=3).success(actor, queries)
    assert counting.calls == [3 * sum(len(query.cuts) for query in queries)]
    actor.sample(known_problems, n=2, seed=0)
    assert len(counting.calls) == 2


def test_what_several_traces_begin_with_is_asked_once(warm_actor, queries, monkeypatch):
    query, other = queries
    longer = dataclasses.replace(query, cuts=query.cuts[:2])
    apart = dataclasses.replace(query, thought=query.thought[::-1])  # the same at cut 0 alone
    renamed = dataclasses.replace(query, problem=dataclasses.replace(query.problem, answers=query.problem.answers[:1]))
    batch = [query, longer, apart, other, renamed, query]
    expected = [EXACT.success(warm_actor, [one])[0] for one in batch]
    asked, score = [], warm_actor.engine.score
    monkeypatch.setattr(
        warm_actor.engine, "score", lambda traces, cuts, *rest: asked.append(cuts) or score(traces, cuts, *rest)
    )
    found = EXACT.success(warm_actor, batch)
    assert [len(cuts) for cuts in asked[0]] == [4, 3, 4, 4] and len(asked) == 1
    for one, alone in zip(found, expected, strict=True):
        assert np.allclose(one.mean, alone.mean, atol=1e-5)
    spent = [success.n_tokens for success in expected]
    assert [success.n_tokens for success in found] == [
        spent[0],
        0,
        spent[2] - (spent[0] - spent[1]) // 2,
        *spent[3:5],
        0,
    ]
