"""Backtracking search through rollouts, prover, labels and tables."""

from dataclasses import replace

import numpy as np
import pytest

from mrt_pipeline import schemas, tables
from mrt_pipeline.evaluation.evaluate import accuracy_by_budget, reading, regret_by_budget
from mrt_pipeline.evaluation.intervals import Intervals
from mrt_pipeline.rollouts.label import label_rollouts
from mrt_pipeline.rollouts.prover import ExactProver, Query, SampledProver, Success
from mrt_pipeline.tasks.base import Grade

LIMITS = {"thinking_budget": 30, "answer_tokens": 8}


@pytest.fixture(scope="module")
def policy(search_policy):
    return search_policy


@pytest.fixture(scope="module")
def known(known_searches):
    return known_searches


@pytest.fixture(scope="module")
def actor(make_actor, policy, backtracking):
    return make_actor(policy, game=backtracking, **LIMITS)


@pytest.fixture(scope="module")
def sample(actor, known):
    def run(n=24, **how):
        return actor.sample(known, n, seed=0, **how)

    return run


@pytest.fixture(scope="module")
def free(sample):
    return sample()


@pytest.fixture(scope="module")
def forced(sample):
    return sample(min_thinking=[30, 0])


def ids(policy, text):
    return policy.tokenizer.encode(text, add_special_tokens=False)


def ends_with_back(thought, template):
    return len(thought) == 0 or thought[-1] in template.back_ids


@pytest.mark.parametrize("kind", ["free", "forced"])
def test_every_rollout_is_a_thought_of_whole_episodes_and_an_attempt(kind, request, policy, backtracking):
    template, rollouts = policy.template, request.getfixturevalue(kind)
    assert {rollout.stop_reason for rollout in rollouts} == {"stop", "length"}
    assert {Grade.CORRECT, Grade.WRONG} <= {rollout.grade for rollout in rollouts}
    for rollout in rollouts:
        assert ends_with_back(rollout.thought, template) and len(rollout.close) == 0
        assert not set(rollout.answer[:-1].tolist()) & set(template.answer_stops)
        n = len(rollout.thought) + len(rollout.answer)
        assert len(rollout.sampled()) == len(rollout.logprobs()) == n == len(rollout.token_ids()) - len(rollout.prompt)
        assert rollout.natural_length in rollout.boundaries
        assert np.array_equal(rollout.boundaries, template.boundaries(rollout.thought))
        ended = len(rollout.answer) and rollout.answer[-1] in template.answer_stops
        attempt = rollout.answer[:-1] if ended else rollout.answer
        assert rollout.answer_text == policy.tokenizer.decode(attempt)
        assert rollout.grade is (backtracking.grade(rollout.problem, rollout.answer_text) if ended else Grade.UNPARSED)
        if rollout.stop_reason == "stop":
            assert rollout.answer[-1] == template.eos_id
            assert rollout.stream_length == n - 1 <= 30 and rollout.n_sampled == rollout.sampled().sum()
        else:  # cut inside an attempt, which was dropped though it was sampled
            assert rollout.stream_length == 30
            assert rollout.n_sampled == rollout.sampled().sum() + 30 - len(rollout.thought)


@pytest.mark.parametrize("kind", ["free", "forced"])
def test_logprobs_equal_a_full_forward_pass_where_sampled(kind, request, policy, all_logprobs):
    for rollout in request.getfixturevalue(kind)[::3]:
        tokens, p = rollout.token_ids(), len(rollout.prompt)
        expected = all_logprobs(policy.model, tokens)[np.arange(p - 1, len(tokens) - 1), rollout.choices()]
        sampled = rollout.sampled()
        assert np.allclose(rollout.logprobs()[sampled], expected[sampled], atol=1e-4)
        assert not rollout.logprobs()[~sampled].any()


def test_forcing_goes_back_to_the_start_where_the_policy_chose_to_stop(forced, policy, backtracking):
    put_in = 0
    for rollout in forced:
        where = np.flatnonzero(rollout.choices() != rollout.token_ids()[len(rollout.prompt) :])
        assert set(rollout.token_ids()[len(rollout.prompt) :][where].tolist()) <= {policy.template.back_ids[0]}
        assert set(rollout.choices()[where].tolist()) <= {policy.template.eos_id}
        if rollout.group == 1:  # not forced
            assert len(where) == 0
            continue
        assert rollout.stream_length == 30
        put_in += len(where)
        if len(where):  # the first one stands where the policy wanted to stop, after its own answer
            first = where[0]
            assert rollout.stopped_at == first
            text = policy.tokenizer.decode(rollout.thought[rollout.natural_length : first])
            assert rollout.stopped_reward == backtracking.grade(rollout.problem, text).reward
            assert rollout.natural_length == policy.template.snap(rollout.thought, first)
        else:
            assert rollout.natural_length == len(rollout.thought)
    assert put_in > 10


def test_where_a_trace_stops_is_known_with_the_reward_of_its_answer(free):
    for rollout in free:
        if rollout.stop_reason == "stop":
            assert (rollout.stopped_at, rollout.stopped_reward) == (rollout.stream_length, rollout.reward)
        else:
            assert rollout.stopped_at is None and rollout.stopped_reward is None


@pytest.fixture
def scripted(scripted_engine, make_completion, make_actor, backtracking, policy, known):
    def run(stream, stop_token_id, answer=None, ends_with=None, **kwargs):
        completion = {k: kwargs.pop(k) for k in ("sampled", "natural_length") if k in kwargs}
        replies = [[make_completion(ids(policy, stream), stop_token_id, **completion)]]
        replies.append([] if answer is None else [make_completion(ids(policy, answer), ends_with)])
        engine = scripted_engine(*replies)
        (found,) = make_actor(policy, engine, backtracking, **LIMITS).sample(known[:1], 1, seed=5, **kwargs)
        return found, engine

    return run


def test_a_natural_stop_is_split_at_its_last_back_symbol(scripted, policy, known):
    right, eos = known[0].answers[0], policy.template.eos_id
    rollout, engine = scripted(f"1 + 1 =2 back1 {right}", eos)
    assert engine.calls[0]["params"].stop_token_ids == (eos,)
    assert engine.calls[1]["prompts"] == []  # nothing is sampled a second time
    assert rollout.thought.tolist() == ids(policy, "1 + 1 =2 back1")
    assert rollout.answer.tolist() == [*ids(policy, right), eos]
    assert rollout.sampled().all() and rollout.logprobs().tolist() == [-1, -2, -3, -4, -5, *range(-6, -13, -1), -0.25]
    assert (rollout.grade, rollout.answer_text, rollout.natural_length) == (Grade.CORRECT, right, 5)
    assert (rollout.n_sampled, rollout.stopped_at, rollout.stopped_reward) == (13, 12, 1.0)


@pytest.mark.parametrize("end", ["eos", "back1", None])
def test_a_cut_attempt_is_dropped_and_the_next_one_is_the_answer(scripted, policy, known, end):
    right, template = known[0].answers[0], policy.template
    stop = {"eos": template.eos_id, "back1": template.back_ids[1], None: None}[end]
    rollout, engine = scripted("1 + 1 =2 back1 1 + 1", None, right, stop)
    assert engine.calls[1]["prompts"] == [[*rollout.prompt, *ids(policy, "1 + 1 =2 back1")]]
    assert set(engine.calls[1]["params"].stop_token_ids) == {template.eos_id, *template.back_ids}
    assert rollout.thought.tolist() == ids(policy, "1 + 1 =2 back1") and rollout.stop_reason == "length"
    assert rollout.answer.tolist() == [*ids(policy, right), *([stop] if end else [])]
    assert rollout.grade is (Grade.CORRECT if end else Grade.UNPARSED)
    assert rollout.n_sampled == 5 + 3 + 7 + bool(end)
    assert rollout.stopped_at is None


def test_a_stop_with_nothing_after_the_last_back_symbol_answers_nothing(scripted, policy):
    rollout, _ = scripted("1 + 1 =2 back1", policy.template.eos_id)
    assert rollout.answer.tolist() == [policy.template.eos_id]
    assert rollout.grade is Grade.UNPARSED and rollout.stopped_reward == 0.0


def test_a_prefix_goes_before_the_stream_and_must_end_after_a_back_symbol(scripted, policy, known):
    prefix = np.array(ids(policy, "2 + 2 =4 back0"))
    rollout, _ = scripted("1 + 1 =2 back1 1 + 1 =2", policy.template.eos_id, prefixes=[prefix])
    assert rollout.thought.tolist() == [*prefix, *ids(policy, "1 + 1 =2 back1")]
    assert rollout.sampled().tolist() == [False] * 5 + [True] * 10
    assert (rollout.natural_length, rollout.stopped_at) == (10, 14)
    with pytest.raises(ValueError, match="snap"):
        scripted("1", policy.template.eos_id, prefixes=[prefix[:3]])


def test_direct_rollouts_answer_with_their_next_attempt(sample, policy):
    prefix = np.array(ids(policy, "2 + 2 =4 back0"))
    for rollout in sample(n=6, prefixes=[prefix, prefix[:0]], direct=[True, True]):
        assert rollout.thought.tolist() == (prefix.tolist() if rollout.group == 0 else [])
        assert rollout.stop_reason == "length" and rollout.n_sampled == len(rollout.answer) > 0


@pytest.fixture(scope="module")
def queries(free):
    chosen = [rollout for rollout in free if len(rollout.thought) > 8][:6]
    assert len(chosen) == 6
    return [Query(r.problem, r.prompt, r.thought, np.array([0, 8, len(r.thought)])) for r in chosen]


def test_exact_is_the_probability_of_the_right_next_attempts(actor, policy, queries, continuation_logprob):
    found = ExactProver().success(actor, queries)
    for query, success in zip(queries, found, strict=True):
        expected = [
            sum(
                np.exp(continuation_logprob(policy.model, [*query.prompt, *query.thought[:cut]], ids(policy, answer)))
                for answer in query.problem.answers
            )
            for cut in query.cuts
        ]
        assert np.allclose(success.mean, expected, atol=1e-4)
    assert found[0].mean.max() > 0.05


def test_exact_and_sampled_agree(actor, queries):
    exact = np.concatenate([s.mean for s in ExactProver().success(actor, queries)])
    found = SampledProver(n_answers=600).success(actor, queries, seed=1)
    mean, sem = (np.concatenate([getattr(s, name) for s in found]) for name in ("mean", "sem"))
    assert exact.max() > 0.1
    assert np.all(np.abs(mean - exact) < 4 * sem + 0.02)


def test_cuts_are_snapped_and_held(forced, actor):
    class Known:
        def success(self, actor, queries, seed):
            return [Success(query.cuts / 100, query.cuts * 0.0, 0) for query in queries]

    rollouts = [rollout for rollout in forced if len(rollout.thought) > 10]
    cuts = [list(range(len(rollout.thought) + 1)) for rollout in rollouts]
    labelled = label_rollouts(actor, Known(), rollouts, 0, cuts)
    for item in labelled:
        ends = item.boundaries
        held = ends[np.searchsorted(ends, np.arange(len(item.rollout.thought) + 1), side="right") - 1]
        assert np.array_equal(item.cuts, held) and np.allclose(item.at_cuts, held / 100)
        assert not np.isnan([item.success_at(cut) for cut in held]).any()


def test_the_curve_of_a_trace_ends_with_the_reward_of_its_own_answer(free, actor):
    for item in label_rollouts(actor, ExactProver(), free, 0):
        x, y = item.curve()
        if item.rollout.stop_reason == "stop":
            assert (x[-1], y[-1]) == (item.rollout.stream_length, item.rollout.reward)
            assert np.array_equal(x[:-1], item.boundaries)
        else:
            assert np.array_equal(x, item.boundaries) and np.array_equal(y, item.success)


BUDGETS = [8, 15, 20, 30]
INTERVALS = Intervals(0.95, 20, 0)


@pytest.fixture(scope="module")
def measure(actor):
    """Labels rollouts for measuring at budgets."""

    def label(rollouts, budgets):
        cuts = [np.minimum(budgets, len(rollout.thought)) for rollout in rollouts]
        return label_rollouts(actor, ExactProver(), rollouts, 0, cuts, at_natural_end=True)

    return label


@pytest.fixture(scope="module")
def made(forced, policy, measure):
    labelled = measure(forced, BUDGETS)
    table = tables.rollouts_table(forced, "base", policy.tokenizer.decode, seed=0)
    return {
        "rollouts": schemas.ROLLOUTS.validate(table),
        "episodes": schemas.EPISODES.validate(tables.episodes_table(labelled, "base", "exact")),
        "anytime": schemas.ANYTIME.validate(tables.anytime_table(labelled, "base", BUDGETS)),
    }


def test_tables_hold_j_at_boundaries_and_the_reward_where_the_policy_stops(made, forced, policy):
    episodes, anytime = made["episodes"], made["anytime"]
    for (problem, number), trace in episodes.groupby(["problem_id", "rollout_id"], sort=False):
        same = [rollout for rollout in forced if rollout.problem.problem_id == problem]
        rollout = same[number]
        rows = anytime[(anytime["problem_id"] == problem) & (anytime["rollout_id"] == number)]
        own = trace[trace["stopped"]]
        assert np.array_equal(trace[~trace["stopped"]]["n_tokens"], rollout.boundaries)
        assert trace["n_tokens"].is_monotonic_increasing
        if rollout.stopped_at is None:
            assert own.empty
        else:
            assert (own["n_tokens"].item(), own["success"].item()) == (rollout.stopped_at, rollout.stopped_reward)
            assert reading(trace, forced=False)["n_tokens"].iloc[-1] == rollout.stopped_at
        at = dict(zip(trace[~trace["stopped"]]["n_tokens"], trace[~trace["stopped"]]["success"], strict=True))
        for budget in BUDGETS:
            natural = rows[~rows["forced"] & (rows["n_tokens"] == budget)]["success"].item()
            if rollout.stopped_at is not None and rollout.stopped_at <= budget:
                assert natural == rollout.stopped_reward
            else:
                cut = policy.template.snap(rollout.thought, min(budget, rollout.natural_length))
                assert natural == at[cut]
            on = rows[rows["forced"] & (rows["n_tokens"] == budget)]["success"].tolist()
            expected = [at[policy.template.snap(rollout.thought, budget)]] if budget <= rollout.stream_length else []
            assert on == expected


def test_a_budget_that_is_filled_counts_as_reached(made):
    accuracy = schemas.ACCURACY.validate(accuracy_by_budget(made["anytime"], made["rollouts"], BUDGETS, INTERVALS))
    schemas.REGRET.validate(regret_by_budget(made["episodes"], BUDGETS, INTERVALS))
    assert set(accuracy[accuracy["forced"]]["budget"]) == set(BUDGETS)


@pytest.mark.parametrize("budget", [15, 30])
def test_natural_accuracy_is_that_of_traces_that_were_not_forced_on(sample, known, actor, measure, budget):
    """What forced traces say about stopping naturally, against rollouts that really stopped, at the same budget."""
    free = replace(actor, limits=actor.limits.within(budget)).sample(known, 500, seed=1)
    labelled = measure(sample(n=500, min_thinking=30), [budget])
    anytime = tables.anytime_table(labelled, "base", [budget])
    natural = anytime[~anytime["forced"]]["success"]
    rewards = np.array([rollout.reward for rollout in free])
    assert abs(natural.mean() - rewards.mean()) < 4 * np.sqrt(natural.var() / 1000 + rewards.var() / 1000)
    # J before the last attempt is no substitute: this policy stops where it is right.
    stopped = np.array([rollout.stop_reason == "stop" for rollout in free])
    before = [item.success_at(item.rollout.natural_length) for item in labelled]
    if budget == 30:
        assert rewards[stopped].mean() > np.mean(before) + 0.1
