"""Linearised sampling: what the policy sees, what is counted, and that a long window is ordinary sampling."""

from dataclasses import replace
from itertools import pairwise

import numpy as np
import pytest
import torch

from mrt_pipeline.policy.policy import Policy, load_language_model, load_tokenizer
from mrt_pipeline.policy.template import encode_prompt
from mrt_pipeline.policy.text_template import TextBacktrackTemplateParams
from mrt_pipeline.rollouts.linearised import sample_linearised
from mrt_pipeline.rollouts.rollout import RolloutParams
from mrt_pipeline.tasks.base import Grade, Problem, Task

ALL = 1000  # a window that no trace here fills


def greedy(actor):
    limits = RolloutParams.model_validate({**actor.limits.model_dump(), "temperature": 0.0})
    return replace(actor, limits=limits)


def ids(policy, text):
    return policy.tokenizer.encode(text, add_special_tokens=False)


@pytest.fixture(scope="module")
def sample(make_actor, backtracking, search_policy, known_searches):
    """Ordinary rollouts, or linearised ones if a window is given."""

    def run(budget, answer_tokens, n=1, seed=0, problems=known_searches, window=None, how=lambda actor: actor):
        limits = {"thinking_budget": budget, "answer_tokens": answer_tokens}
        actor = how(make_actor(search_policy, game=backtracking, **limits))
        if window is None:
            return actor.sample(problems, n, seed)
        return sample_linearised(actor, problems, n, seed, window, max_length=256)

    return run


@pytest.mark.parametrize("budget", [3, 13, 16, 30, 64])
@pytest.mark.parametrize("answer_tokens", [3, 8])
def test_a_window_as_long_as_the_trace_gives_the_tokens_of_ordinary_sampling(
    sample, backtracking, budget, answer_tokens
):
    problems = backtracking.problems()[:12]
    ordinary, linearised = (
        sample(budget, answer_tokens, problems=problems, window=window, how=greedy) for window in (None, ALL)
    )
    for one, other in zip(ordinary, linearised, strict=True):
        assert one.token_ids().tolist() == other.token_ids().tolist()
        assert np.allclose(one.logprobs(), other.logprobs(), atol=1e-4)
        assert (one.stop_reason, one.grade, one.answer_text) == (other.stop_reason, other.grade, other.answer_text)
        assert (one.n_sampled, one.stream_length, one.natural_length, one.stopped_at, one.stopped_reward) == (
            other.n_sampled,
            other.stream_length,
            other.natural_length,
            other.stopped_at,
            other.stopped_reward,
        )


@pytest.mark.parametrize("answer_tokens", [2, 8])
def test_a_window_as_long_as_the_trace_gives_the_distribution_of_ordinary_sampling(sample, answer_tokens):
    ordinary, linearised = (sample(30, answer_tokens, 250, seed=3, window=window) for window in (None, ALL))
    for measured in (
        lambda rollout: rollout.stop_reason == "stop",
        lambda rollout: rollout.stop_reason == "stop" and rollout.reward,
        lambda rollout: len(rollout.thought),
        lambda rollout: rollout.n_sampled,
    ):
        a, b = (np.array([measured(r) for r in rollouts], dtype=float) for rollouts in (ordinary, linearised))
        assert abs(a.mean() - b.mean()) < 4 * np.sqrt((a.var() + b.var()) / len(a)) + 1e-9


@pytest.mark.parametrize("window", [0, 1, 2])
def test_every_token_has_the_probability_it_has_after_its_window(sample, window, search_policy, continuation_logprob):
    rollouts = sample(60, 8, 40, window=window)
    longest = max(len(rollout.boundaries) - 1 for rollout in rollouts)
    assert longest > window + 1
    for rollout in rollouts:
        ends = rollout.boundaries
        for j in range(len(ends) - 1):
            seen = rollout.thought[ends[max(0, j - window)] : ends[j]]
            episode = rollout.thought[ends[j] : ends[j + 1]]
            expected = continuation_logprob(search_policy.model, [*rollout.prompt, *seen], episode)
            assert rollout.thought_logprobs[ends[j] : ends[j + 1]].sum() == pytest.approx(expected, abs=1e-3)
        seen = rollout.thought[ends[max(0, len(ends) - 1 - window)] :]  # the answer sees the same window
        expected = continuation_logprob(search_policy.model, [*rollout.prompt, *seen], rollout.answer)
        assert rollout.answer_logprobs.sum() == pytest.approx(expected, abs=1e-3)


def test_window_0_makes_every_attempt_from_the_bare_prompt(sample, search_policy, known_searches):
    """So the first attempt and the later ones are of one distribution, which those of ordinary sampling are not."""

    def right(rollouts, which):
        found = []
        for rollout in rollouts:
            attempts = [rollout.thought[a : b - 1] for a, b in pairwise(rollout.boundaries)]
            if rollout.stop_reason == "stop":
                attempts.append(rollout.answer[:-1])
            texts = [search_policy.tokenizer.decode(attempt) for attempt in which(attempts)]
            found += [text in rollout.problem.answers for text in texts]
        return np.array(found, dtype=float)

    def error(one, other):
        return np.sqrt(one.var() / len(one) + other.var() / len(other))

    free, forgetful = sample(40, 8, 1_000), sample(40, 8, 1_000, window=0)
    first, later = (right(forgetful, which) for which in (lambda a: a[:1], lambda a: a[1:]))
    assert abs(first.mean() - later.mean()) < 4 * error(first, later)
    free_later = right(free, lambda a: a[1:])
    assert free_later.mean() > later.mean() + 3 * error(free_later, later)


@pytest.fixture
def scripted(scripted_engine, make_completion, make_actor, backtracking, search_policy, known_searches):
    """One chain from prepared parts, (text, name of the token that stopped it); "back1" and so on, or None."""

    def run(*parts, budget=30, answer_tokens=8, window=1, max_length=256):
        template = search_policy.template
        stops = {None: None, "eos": template.eos_id, "back0": template.back_ids[0], "back1": template.back_ids[1]}
        engine = scripted_engine(*([make_completion(ids(search_policy, text), stops[end])] for text, end in parts), [])
        limits = {"thinking_budget": budget, "answer_tokens": answer_tokens}
        actor = make_actor(search_policy, engine, backtracking, **limits)
        (rollout,) = sample_linearised(actor, known_searches[:1], 1, seed=5, window=window, max_length=max_length)
        prompt = len(rollout.prompt)
        calls = [call for call in engine.calls if call["prompts"]]
        return rollout, [search_policy.tokenizer.decode(call["prompts"][0][prompt:]) for call in calls], calls

    return run


def test_what_is_older_than_the_window_is_forgotten(scripted, known_searches, search_policy):
    right = known_searches[0].answers[0]
    rollout, seen, calls = scripted(("1 + 1 =2", "back1"), ("1 + 2 =3", "back0"), ("2 + 2 =4", "back1"), (right, "eos"))
    assert seen == ["", "1 + 1 =2 back1", "1 + 2 =3 back0", "2 + 2 =4 back1"]
    assert [call["max"] for call in calls] == [[8]] * 4
    assert rollout.thought.tolist() == ids(search_policy, "1 + 1 =2 back1 1 + 2 =3 back0 2 + 2 =4 back1")
    assert rollout.answer_text == right and rollout.grade is Grade.CORRECT
    assert rollout.n_sampled == 15 + 7 + 1 and rollout.stopped_at == 22


def test_the_budget_ends_a_chain_and_the_answer_sees_the_window(scripted, known_searches, search_policy):
    right = known_searches[0].answers[0]
    rollout, seen, calls = scripted(
        ("1 + 1 =2", "back1"), ("1 + 2 =3", "back0"), ("2 +", None), (right, "back0"), budget=12
    )
    assert [call["max"] for call in calls] == [[8], [7], [2], None]
    assert seen == ["", "1 + 1 =2 back1", "1 + 2 =3 back0", "1 + 2 =3 back0"]  # the cut attempt is dropped
    assert rollout.stop_reason == "length" and rollout.stopped_at is None
    assert rollout.grade is Grade.CORRECT and rollout.answer[-1] == search_policy.template.back_ids[0]
    assert rollout.n_sampled == 12 + 8 and rollout.stream_length == 12


def test_a_chain_may_stop_where_an_episode_fills_the_budget(scripted):
    rollout, _, calls = scripted(("1 + 1 =2", "back1"), ("", "eos"), budget=5)
    assert [call["max"] for call in calls] == [[5], [1]]
    assert (rollout.stop_reason, rollout.stopped_at, rollout.n_sampled) == ("stop", 5, 6)
    rollout, _, calls = scripted(("1 + 1 =2", "back1"), ("1", None), ("1 +", "eos"), budget=5)
    assert [call["max"] for call in calls] == [[5], [1], None]
    assert (rollout.stop_reason, rollout.stream_length, rollout.n_sampled) == ("length", 5, 5 + 3)


def test_going_back_beyond_the_budget_does_not_count(scripted):
    rollout, _, _ = scripted(("1 + 1 =2", "back1"), ("1 + 2 =3", "back0"), ("1 + 2 =3", "back0"), budget=9)
    assert len(rollout.thought) == 5 and rollout.stream_length == 9


def test_the_token_after_a_full_part_is_drawn_again(scripted):
    """Else a stop would be twice as probable there."""
    rollout, seen, _ = scripted(("1 + 1", "back1"), ("=2", "back0"), ("2", "eos"), answer_tokens=3)
    assert seen == ["", "1 + 1", "1 + 1 =2 back0"]
    assert rollout.thought_logprobs.tolist() == [-1, -2, -3, -1, -0.25]


def test_fewer_episodes_are_shown_where_the_context_is_short(scripted, search_policy, known_searches):
    prompt = len(encode_prompt(search_policy.tokenizer, search_policy.template, known_searches[0].question))
    parts = (("1 + 1 =2", "back1"), ("1 + 2 =3", "back0"), ("2 + 2 =4", "back1"), ("1", "eos"))
    _, seen, _ = scripted(*parts, window=3, max_length=prompt + 10 + 8 + 1)
    assert seen[-1] == "1 + 2 =3 back0 2 + 2 =4 back1"
    long = (("1 + 1 =2 + 1 =3 -", None), ("1 =2 -", None), ("1", "eos"))
    rollout, _, calls = scripted(*long, max_length=prompt + 12)
    assert [call["max"] for call in calls] == [[8], [3], None]  # an attempt as long as the context ends the chain
    assert rollout.stop_reason == "length" and rollout.n_sampled == 11 + 2


def test_think_tags_cannot_be_linearised(scripted_engine, make_actor, tiny_policy, problems):
    actor = make_actor(tiny_policy, scripted_engine())
    with pytest.raises(ValueError, match="answers after its thought"):
        sample_linearised(actor, problems[:1], 1, seed=0, window=1, max_length=64)


class Anything:
    """Every text is right."""

    grade_all = Task.grade_all

    def grade(self, problem, text):
        return Grade.CORRECT

    def read(self, text):
        return text


@pytest.mark.parametrize("answer_tokens", [5, 20])
def test_sentences_in_text_end_episodes_and_what_follows_them_is_sampled_again(
    language_model, make_actor, answer_tokens
):
    tokenizer = load_tokenizer(language_model, None, None)
    model = load_language_model(language_model, None, "float32")
    with torch.no_grad():  # so that the next token depends on the whole context
        for name, parameter in model.named_parameters():
            if parameter.ndim == 2:
                parameter *= 12 if "embed" in name else 15
    problems = [Problem(f"p{i}", "hand", "test", f"{i} + 7?", (), {}) for i in range(4)]

    back = [*" erfn", "Line <n>"]  # random weights write such letters
    policy = Policy(model, tokenizer, TextBacktrackTemplateParams(back=back).bind(tokenizer))
    actor = greedy(make_actor(policy, game=Anything(), thinking_budget=40, answer_tokens=answer_tokens))
    ordinary = actor.sample(problems, 1, seed=0)
    linearised, forgetful = (sample_linearised(actor, problems, 1, 0, window, max_length=512) for window in (ALL, 1))
    assert [r.token_ids().tolist() for r in ordinary] == [r.token_ids().tolist() for r in linearised]
    assert [r.n_sampled for r in ordinary] == [r.n_sampled for r in linearised]
    assert max(len(rollout.boundaries) for rollout in ordinary) > 4
    assert [r.token_ids().tolist() for r in ordinary] != [r.token_ids().tolist() for r in forgetful]
