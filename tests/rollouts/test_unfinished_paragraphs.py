"""Thoughts that are cut lose the paragraph that the cut is in: answers, labels, tables and what is counted."""

from dataclasses import replace

import numpy as np
import pytest

from mrt_pipeline import tables
from mrt_pipeline.policy.policy import Policy, load_language_model, load_tokenizer
from mrt_pipeline.policy.template import encode_prompt
from mrt_pipeline.policy.text_template import Paragraphs, TextTemplateParams, token_texts
from mrt_pipeline.rollouts.label import label_rollouts
from mrt_pipeline.rollouts.prover import ExactProver
from mrt_pipeline.tasks.base import Grade, Problem, Task

PROBLEM = Problem("p", "hand", "test", "12 + 7?", ("19",), {})
THOUGHT = ["12 + 7 = 19\n\n", "19 it is", "\nWait", "\n\nso 30 ", "- 11"]


class Exactly:
    """Right is 19, and nothing else."""

    grade_all = Task.grade_all

    def grade(self, problem, text):
        return Grade.CORRECT if text == "19" else Grade.WRONG

    def read(self, text):
        return text


@pytest.fixture(scope="module")
def tokenizer(language_model):
    return load_tokenizer(language_model, None, None)


@pytest.fixture(scope="module")
def template(tokenizer):
    paragraphs = Paragraphs(markers=("Wait", "so"), min_paragraphs=1, drop_unfinished=True)
    return TextTemplateParams(
        family=None,
        suffix="",
        opening="",
        close="####",
        stop_phrase="#### ",
        answer_opening="",
        answer_end="",
        extensions=["\nWait", "\nHold on"],
        segmentation=paragraphs,
    ).bind(tokenizer)


@pytest.fixture(scope="module")
def policy(language_model, tokenizer, template):
    return Policy(load_language_model(language_model, None, "float32"), tokenizer, template)


@pytest.fixture
def make_scripted(make_actor, policy, scripted_engine):
    """An actor that is given its thought and its answer."""

    def make(thinking_budget, *replies):
        engine = scripted_engine(*([reply] for reply in replies))
        return make_actor(policy, engine, Exactly(), thinking_budget=thinking_budget, answer_tokens=8)

    return make


@pytest.fixture(scope="module")
def ends(tokenizer):
    return np.cumsum([len(tokenizer.encode(part)) for part in THOUGHT])


@pytest.fixture
def scripted(make_scripted, make_completion, tokenizer, template, ends):
    """A thought of the first so many parts, cut by length; where it has "Wait", that was put in place of a stop."""

    def run(n_parts, answer="19", **how):
        ids = [token for part in THOUGHT[:n_parts] for token in tokenizer.encode(part)]
        forced_on = n_parts > 2
        sampled = np.ones(len(ids), bool)
        sampled[ends[1] : ends[2]] = False
        thought = make_completion(ids, sampled=sampled, natural_length=int(ends[1]) if forced_on else None)
        actor = make_scripted(len(ids), thought, make_completion(tokenizer.encode(answer), template.eos_id))
        (rollout,) = actor.sample([PROBLEM], 1, seed=0, min_thinking=len(ids), **how)
        return rollout, actor.engine

    return run


@pytest.mark.parametrize(("n_parts", "kept"), [(1, 1), (2, 1), (3, 2), (5, 2)])
def test_the_answer_follows_the_last_finished_paragraph_or_the_first_stop(
    scripted, tokenizer, template, ends, n_parts, kept
):
    rollout, engine = scripted(n_parts)
    if n_parts == 5:  # here the extension is a paragraph of its own, with a separator after it
        kept, expected = 3, ends[2] + len(tokenizer.encode("\n\n"))
    else:
        expected = ends[kept - 1]
    assert len(rollout.thought) == expected
    assert tokenizer.decode(rollout.thought) == "".join(THOUGHT[:kept]) + ("\n\n" if n_parts == 5 else "")
    assert engine.calls[1]["prompts"] == [[*rollout.prompt, *rollout.thought, *template.stop_phrase]]
    assert (rollout.stop_reason, rollout.reward) == ("length", 1.0)
    assert rollout.natural_length == (ends[1] if n_parts > 2 else expected)


@pytest.mark.parametrize("n_parts", [1, 2, 3, 5])
def test_what_is_dropped_counts_as_sampled_and_is_not_trained(scripted, ends, n_parts):
    rollout, _ = scripted(n_parts)
    put_in = ends[2] - ends[1] if n_parts > 2 else 0
    assert rollout.n_sampled == ends[n_parts - 1] - put_in + len(rollout.answer)
    assert rollout.stream_length == ends[n_parts - 1]
    n = len(rollout.thought) + len(rollout.close) + len(rollout.answer)
    assert len(rollout.sampled()) == len(rollout.logprobs()) == len(rollout.per_token(1.0, 1.0)) == n


def test_a_first_paragraph_is_kept_even_if_it_is_not_finished(make_scripted, make_completion, tokenizer, template):
    ids = tokenizer.encode("12 + 7 = 1")
    answer = make_completion(tokenizer.encode("19"), template.eos_id)
    (rollout,) = make_scripted(len(ids), make_completion(ids), answer).sample([PROBLEM], 1, seed=0)
    assert rollout.thought.tolist() == ids and rollout.dropped == 0


def test_a_prefix_is_never_dropped(make_scripted, make_completion, tokenizer, template):
    prefix = np.array(tokenizer.encode("12 + 7\n\nit is"))
    for more, direct in (([], True), (tokenizer.encode(" so"), False)):
        actor = make_scripted(len(prefix) + 9, make_completion(more), make_completion([], template.eos_id))
        (rollout,) = actor.sample([PROBLEM], 1, 0, prefixes=[prefix], direct=[direct])
        assert rollout.thought.tolist() == prefix.tolist()
        assert rollout.natural_length == len(prefix) and rollout.n_sampled == len(more) + 1


@pytest.fixture(scope="module")
def sampled(make_actor, policy):
    """An actor for whom a blank ends a paragraph; traces of random weights, budget-forced in part, and whole ones."""

    def sample(drop):
        blanks = Paragraphs(markers=("Wait",), separator=" ", min_paragraphs=1, drop_unfinished=drop)
        params = policy.template.params.model_copy(update={"segmentation": blanks})
        short = replace(policy.template, params=params)
        actor = make_actor(policy, game=Exactly(), template=short, thinking_budget=40, answer_tokens=4)
        problems = [replace(PROBLEM, problem_id=f"p{i}") for i in range(2)]
        return actor, actor.sample(problems, 24, 0, min_thinking=[40, 0])

    return *sample(True), sample(False)[1]


def test_every_thought_that_was_cut_ends_with_a_finished_paragraph(sampled, tokenizer):
    dropped = 0
    for rollout, whole in zip(*sampled[1:], strict=True):
        n, pieces = len(rollout.thought), token_texts(tokenizer, whole.thought)
        assert rollout.thought.tolist() == whole.thought[:n].tolist()
        if rollout.stop_reason != "length":
            assert n == len(whole.thought)
            continue
        assert rollout.stream_length == 40
        assert rollout.natural_length == min(whole.natural_length, n)
        assert rollout.n_sampled - len(rollout.answer) == whole.n_sampled - len(whole.answer)
        dropped += n < 40
        kept, lost = "".join(pieces[:n]), "".join(pieces[n:])
        assert " " not in lost[1:]  # it may begin with one, in a token that holds more than that
        if n < 40:
            assert kept.endswith(" ") or lost.startswith(" ") or n == whole.natural_length
        else:
            assert " " not in kept.strip() or kept.endswith(" ")
    assert dropped > 10


def test_logprobs_equal_a_full_forward_pass_where_sampled(sampled, policy, all_logprobs):
    for rollout in sampled[1][::4]:
        tokens, p = rollout.token_ids(), len(rollout.prompt)
        expected = all_logprobs(policy.model, tokens)[np.arange(p - 1, len(tokens) - 1), rollout.choices()]
        where = rollout.sampled()
        assert np.allclose(rollout.logprobs()[where], expected[where], atol=1e-4)


def test_labels_and_budgets_hold_j_of_the_last_finished_paragraph(sampled, tokenizer, continuation_logprob):
    actor, rollouts, _ = sampled
    template = actor.template
    prompt = encode_prompt(tokenizer, template, PROBLEM.question)
    prover = ExactProver()
    cuts = [range(len(rollout.thought) + 1) for rollout in rollouts]
    labelled = label_rollouts(actor, prover, rollouts, 0, cuts)
    for item in labelled[::6]:
        for cut in (0, 7, len(item.rollout.thought)):
            place = template.snap(item.rollout.thought, cut, item.rollout.finished)
            closed = place == item.rollout.natural_length and len(item.rollout.natural_close)
            suffix = item.rollout.natural_close if closed else template.stop_phrase
            context = [*prompt, *item.rollout.thought[:place], *suffix]
            answer = [*tokenizer.encode("19"), template.eos_id]
            expected = np.exp(continuation_logprob(actor.policy.model, context, answer))
            assert item.success_at(place) == pytest.approx(expected, abs=1e-4)
    table = tables.rollouts_table(rollouts, "base", tokenizer.decode, 0)
    budgets = [5, 13, 40]
    cuts = [np.minimum(budgets, len(rollout.thought)) for rollout in rollouts]
    measured = label_rollouts(actor, prover, rollouts, 0, cuts, at_natural_end=True)
    anytime = tables.anytime_table(measured, "base", budgets)
    for row, item in zip(table.itertuples(), labelled, strict=True):
        mine = anytime[(anytime["problem_id"] == row.problem_id) & (anytime["rollout_id"] == row.rollout_id)]
        natural = item.rollout.natural_length
        assert not mine.empty
        for point in mine.itertuples():
            cut = point.n_tokens if point.forced else min(point.n_tokens, natural)
            place = template.snap(item.rollout.thought, min(cut, len(item.rollout.thought)), item.rollout.finished)
            ended = not point.forced and point.n_tokens >= row.stopped_at  # the whole trace, inside its thought
            assert point.success == pytest.approx(0.0 if ended else item.success_at(place))
