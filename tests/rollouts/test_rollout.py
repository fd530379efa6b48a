import dataclasses

import numpy as np
import pytest

from mrt_pipeline.policy.template import encode_prompt
from mrt_pipeline.tasks.base import Grade


def ids(policy, text):
    return policy.tokenizer.encode(text, add_special_tokens=False)


@pytest.fixture(scope="module")
def rollouts(warm_actor, known_problems):
    return warm_actor.sample(known_problems, n=24, seed=0)


@pytest.fixture(scope="module")
def forced(warm_actor, known_problems):
    return warm_actor.sample(known_problems, n=12, seed=0, min_thinking=[24, 0])


@pytest.fixture
def scripted(scripted_engine, make_completion, make_actor, warm_policy, problems):
    """Sample one rollout of the first problem from a prepared thought and answer."""

    def run(thought, stop_token_id, answer, ends=True, **kwargs):
        policy = warm_policy
        eos = policy.template.eos_id
        replies = [[make_completion(ids(policy, thought), stop_token_id, **kwargs)]]
        replies.append([] if answer is None else [make_completion(ids(policy, answer), eos if ends else None)])
        engine = scripted_engine(*replies)
        return make_actor(policy, engine).sample(problems[:1], 1, seed=5)[0], engine

    return run


def check_lengths(rollout):
    n = len(rollout.thought) + len(rollout.close) + len(rollout.answer)
    assert len(rollout.sampled()) == len(rollout.logprobs()) == len(rollout.per_token(0.0, 0.0)) == n
    assert rollout.token_ids().shape == (len(rollout.prompt) + n,)
    assert rollout.token_ids().dtype == np.int64 and rollout.logprobs().dtype == np.float32


def test_rollouts_of_a_problem_stand_side_by_side(rollouts, warm_policy, known_problems):
    assert [rollout.group for rollout in rollouts] == [0] * 24 + [1] * 24
    for rollout in rollouts:
        assert rollout.problem == known_problems[rollout.group]
        assert rollout.prompt.tolist() == encode_prompt(
            warm_policy.tokenizer, warm_policy.template, rollout.problem.question
        )


def test_parts_and_flags_of_every_rollout_fit(rollouts, warm_policy, task):
    template = warm_policy.template
    assert {rollout.stop_reason for rollout in rollouts} >= {"stop", "length"}
    assert {rollout.grade for rollout in rollouts} == {Grade.CORRECT, Grade.WRONG, Grade.UNPARSED}
    for rollout in rollouts:
        check_lengths(rollout)
        assert rollout.natural_length == len(rollout.thought) <= 24
        assert np.array_equal(rollout.thought_choices, rollout.thought)
        assert rollout.close.tolist() == ([] if rollout.stop_reason == "eos" else [template.close_ids[0]])
        assert np.array_equal(
            rollout.token_ids(), np.concatenate([rollout.prompt, rollout.thought, rollout.close, rollout.answer])
        )
        if rollout.grade is not Grade.UNPARSED:
            assert rollout.answer[-1] == template.eos_id
            assert rollout.grade is task.grade(rollout.problem, rollout.answer_text)
        assert rollout.reward == (rollout.grade is Grade.CORRECT)
        if rollout.stop_reason == "length":
            assert len(rollout.thought) == 24


@pytest.mark.parametrize("kind", ["rollouts", "forced"])
def test_logprobs_equal_a_full_forward_pass_where_sampled_and_are_zero_elsewhere(
    kind, request, warm_policy, all_logprobs
):
    for rollout in request.getfixturevalue(kind)[::3]:
        tokens, p = rollout.token_ids(), len(rollout.prompt)
        expected = all_logprobs(warm_policy.model, tokens)[np.arange(p - 1, len(tokens) - 1), rollout.choices()]
        sampled = rollout.sampled()
        assert np.allclose(rollout.logprobs()[sampled], expected[sampled], atol=1e-4)
        assert not rollout.logprobs()[~sampled].any()


def test_forcing_holds_the_thought_to_its_minimum_and_marks_what_was_put_in(forced, warm_policy):
    template = warm_policy.template
    for rollout in forced:
        check_lengths(rollout)
        put_in = np.flatnonzero(rollout.thought_choices != rollout.thought)
        if rollout.group == 1:  # not forced
            assert len(put_in) == 0
            continue
        assert len(rollout.thought) == 24
        assert set(rollout.thought[put_in].tolist()) <= set(template.extensions[0])
        assert set(rollout.thought_choices[put_in].tolist()) <= set(template.thinking_stops)  # what was really chosen
        assert rollout.natural_length == (put_in[0] if len(put_in) else 24)
        assert rollout.sampled()[put_in].all()
        closed = len(put_in) and rollout.thought_choices[put_in[0]] == template.close_ids[0]
        assert rollout.natural_close.tolist() == ([template.close_ids[0]] if closed else [])
    assert any(rollout.natural_length < 24 for rollout in forced)


def test_the_seed_repeats_and_matters(rollouts, warm_actor, known_problems):
    def sample(seed):
        return [rollout.token_ids().tolist() for rollout in warm_actor.sample(known_problems, n=24, seed=seed)]

    assert sample(0) == [rollout.token_ids().tolist() for rollout in rollouts]
    assert sample(1) != sample(0)


def test_a_closed_thought_is_answered_after_its_close_token(scripted, warm_policy, problems):
    template, answer = warm_policy.template, problems[0].answers[0]
    rollout, engine = scripted("wait 1", template.close_ids[0], answer)
    asked = engine.calls[1]
    assert asked["prompts"] == [[*rollout.prompt, *ids(warm_policy, "wait 1"), template.close_ids[0]]]
    assert asked["params"].max_tokens == 6 and asked["params"].stop_token_ids == (template.eos_id,)
    assert asked["seed"] != engine.calls[0]["seed"]
    assert rollout.stop_reason == "stop" and rollout.grade is Grade.CORRECT and rollout.answer_text == answer
    assert rollout.sampled().all()
    assert rollout.logprobs().tolist() == [-1, -2, -0.25, -1, -2, -3, -4, -5, -0.25]
    assert rollout.n_sampled == 2 + 1 + 6


def test_a_forced_stop_phrase_is_never_marked_as_sampled(
    scripted_engine, make_completion, make_actor, warm_policy, problems
):
    template = dataclasses.replace(warm_policy.template, stop_phrase=tuple(ids(warm_policy, "low high </think>")))
    answer = ids(warm_policy, problems[0].answers[0])
    engine = scripted_engine([make_completion(ids(warm_policy, "wait 1"))], [make_completion(answer, template.eos_id)])
    (rollout,) = make_actor(warm_policy, engine, template=template).sample(problems[:1], 1, seed=0)
    assert rollout.stop_reason == "length" and rollout.close.tolist() == list(template.stop_phrase)
    assert engine.calls[1]["prompts"] == [[*rollout.prompt, *rollout.thought, *template.stop_phrase]]
    assert rollout.sampled().tolist() == [True] * 2 + [False] * 3 + [True] * 6
    assert rollout.logprobs()[2:5].tolist() == [0, 0, 0]
    assert rollout.n_sampled == 2 + 6
    assert rollout.grade is Grade.CORRECT


def test_an_answer_without_its_end_token_is_unparsed(scripted, warm_policy, problems):
    rollout, _ = scripted("wait 1", warm_policy.template.close_ids[0], problems[0].answers[0], ends=False)
    assert rollout.answer_text == problems[0].answers[0]
    assert rollout.grade is Grade.UNPARSED and rollout.reward == 0
    assert len(rollout.answer) == 5
    assert rollout.n_sampled == 2 + 1 + 5


def test_a_trace_that_ends_without_an_answer_is_unparsed(scripted, warm_policy):
    eos = warm_policy.template.eos_id
    rollout, engine = scripted("wait 1", eos, None)
    assert engine.calls[1]["prompts"] == []
    assert rollout.stop_reason == "eos" and rollout.grade is Grade.UNPARSED and rollout.answer_text == ""
    assert len(rollout.close) == 0 and rollout.answer.tolist() == [eos]
    assert rollout.sampled().tolist() == [True] * 3
    assert rollout.logprobs().tolist() == [-1, -2, -0.25]
    check_lengths(rollout)


@pytest.mark.parametrize(
    "stop",
    [
        "stop",
        "length",
        "eos",
    ],
)
def test_n_sampled_counts_the_sampled_tokens(scripted, warm_policy, problems, stop):
    template = warm_policy.template
    stop_token_id = {"stop": template.close_ids[0], "length": None, "eos": template.eos_id}[stop]
    rollout, _ = scripted(
        "wait 1 +",
        stop_token_id,
        None if stop == "eos" else problems[0].answers[0],
        sampled=[False, True, True],
        natural_length=0,
    )
    assert rollout.n_sampled == rollout.sampled().sum()


@pytest.mark.parametrize("special", ["<pad>", "<unk>", "<bos>"])
def test_an_answer_with_a_special_token_inside_is_not_correct(scripted, warm_policy, problems, special):
    first, rest = problems[0].answers[0].split(" ", 1)
    rollout, _ = scripted("wait 1", warm_policy.template.close_ids[0], f"{first} {special} {rest}")
    assert rollout.grade is not Grade.CORRECT


def test_only_rollouts_with_an_answer_to_give_are_asked_for_one(
    scripted_engine, make_completion, make_actor, warm_policy, problems
):
    template = warm_policy.template
    right = make_completion(ids(warm_policy, problems[1].answers[0]), template.eos_id)
    wrong = make_completion(ids(warm_policy, problems[0].answers[0]), template.eos_id)
    thoughts = [
        make_completion(ids(warm_policy, "wait 1"), template.eos_id),
        make_completion(ids(warm_policy, "wait 2"), template.close_ids[0]),
        make_completion(ids(warm_policy, "wait 3"), template.close_ids[0]),
        make_completion(ids(warm_policy, "wait 4")),
    ]
    engine = scripted_engine(thoughts, [right, right, wrong])
    found = make_actor(warm_policy, engine).sample(problems[:2], 2, seed=0)
    assert [len(prompt) - len(found[0].prompt) for prompt in engine.calls[1]["prompts"]] == [3, 3, 3]
    assert [rollout.stop_reason for rollout in found] == ["eos", "stop", "stop", "length"]
    # the second problem's answer is wrong for the first problem, and the other way round
    assert [rollout.grade for rollout in found] == [Grade.UNPARSED, Grade.WRONG, Grade.CORRECT, Grade.WRONG]


def test_settings_reach_the_engine(scripted_engine, make_completion, make_actor, warm_policy, problems):
    template = warm_policy.template
    engine = scripted_engine([make_completion([7], template.eos_id)], [])
    actor = make_actor(warm_policy, engine, thinking_budget=11, answer_tokens=3, temperature=0.7)
    actor.sample(problems[:1], 1, seed=3, min_thinking=4)
    thinking, answering = (call["params"] for call in engine.calls)
    assert (thinking.max_tokens, thinking.temperature, thinking.n) == (11, 0.7, 1)
    assert set(thinking.stop_token_ids) == {template.close_ids[0], template.eos_id}
    assert thinking.extensions == template.extensions
    assert (engine.calls[0]["seed"], list(engine.calls[0]["min"])) == (3, [4])
    assert (answering.max_tokens, answering.temperature, answering.extensions) == (3, 0.7, ())


@pytest.fixture(scope="module")
def continued(warm_actor, warm_policy, known_problems):
    """Rollouts that think on from a prefix, and direct ones that answer right after it."""
    start = np.array(ids(warm_policy, "wait 2 + 1 =3"))
    return start, warm_actor.sample(known_problems, n=8, seed=0, prefixes=[start, start[:2]], direct=[False, True])


def test_prefixes_are_part_of_the_thought_but_never_sampled(continued, warm_policy, all_logprobs):
    start, found = continued
    assert [rollout.group for rollout in found] == [0] * 8 + [1] * 8
    for rollout in found:
        check_lengths(rollout)
        n_start = 5 if rollout.group == 0 else 2
        assert rollout.thought[:n_start].tolist() == start[:n_start].tolist()
        assert not rollout.sampled()[:n_start].any() and not rollout.logprobs()[:n_start].any()
        if rollout.stop_reason != "eos":  # see test_n_sampled_counts_the_sampled_tokens
            assert rollout.n_sampled == rollout.sampled().sum()
        assert n_start <= rollout.natural_length == len(rollout.thought) <= 24
        tokens, p = rollout.token_ids(), len(rollout.prompt)
        expected = all_logprobs(warm_policy.model, tokens)[np.arange(p - 1, len(tokens) - 1), rollout.choices()]
        sampled = rollout.sampled()
        assert np.allclose(rollout.logprobs()[sampled], expected[sampled], atol=1e-4)


def test_direct_rollouts_answer_right_after_their_prefix(continued, warm_policy):
    _, found = continued
    assert any(len(rollout.thought) > 5 for rollout in found[:8])
    for rollout in found[8:]:
        assert len(rollout.thought) == 2 and rollout.stop_reason == "length"
        assert rollout.close.tolist() == list(warm_policy.template.stop_phrase)
        assert rollout.n_sampled == len(rollout.answer) > 0


def test_prefixes_count_against_the_budget_and_the_minimum(
    scripted_engine, make_completion, make_actor, warm_policy, problems
):
    template = warm_policy.template
    engine = scripted_engine([make_completion([7], template.eos_id)] * 3, [])
    prefixes = [np.array(ids(warm_policy, text)) for text in ("wait", "wait 1 + 2", "wait 1 +")]
    make_actor(warm_policy, engine).sample(
        problems[:3], 1, seed=0, min_thinking=[24, 3, 5], prefixes=prefixes, direct=[False, False, True]
    )
    call = engine.calls[0]
    assert [prompt[-1] for prompt in call["prompts"]] == [prefix[-1] for prefix in prefixes]
    assert list(call["min"])[:2] == [23, 0] and list(call["max"]) == [23, 20, 0]


def test_without_prefixes_nothing_changes(rollouts, warm_actor, known_problems):
    nothing = np.empty(0, dtype=np.int64)
    found = warm_actor.sample(known_problems, n=24, seed=0, prefixes=[nothing] * 2, direct=[False, False])
    assert all(np.array_equal(a.token_ids(), b.token_ids()) for a, b in zip(found, rollouts, strict=True))


def test_a_prefix_beyond_the_budget_is_refused(warm_actor, known_problems):
    with pytest.raises(ValueError, match="budget"):
        warm_actor.sample(known_problems, 1, seed=0, prefixes=[np.full(25, 7), np.full(3, 7)])


def test_per_token_puts_one_number_on_the_thought_and_one_on_the_rest(make_rollout):
    rollout = make_rollout(thought=(7, 8, 9))
    assert rollout.per_token(np.array([1.0, 2.0, 3.0]), 4.0).tolist() == [1, 2, 3, 4, 4, 4]
    assert rollout.per_token(0.5, 0.25).tolist() == [0.5] * 3 + [0.25] * 3


def test_boundaries_follow_the_markers(scripted, warm_policy):
    marker = warm_policy.tokenizer.decode(next(iter(warm_policy.template.marker_ids)))
    rollout, _ = scripted(f"{marker} 8 9 {marker} 8", None, "1")
    assert rollout.boundaries.tolist() == [0, 3, 5] and rollout.boundaries.dtype == np.int64
