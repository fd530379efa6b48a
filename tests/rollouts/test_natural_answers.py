"""Where the policy closes its thought itself: how its answer is read, and what J is there."""

import dataclasses
from pathlib import Path

import numpy as np
import pytest

from mrt_pipeline.algorithms.mrt_online import MRTOnline
from mrt_pipeline.config import Parameters
from mrt_pipeline.config_loader import compose_parameters
from mrt_pipeline.errors import InputError
from mrt_pipeline.policy.policy import Policy, load_language_model, load_tokenizer
from mrt_pipeline.policy.template import encode_prompt
from mrt_pipeline.rollouts.label import label_rollouts
from mrt_pipeline.rollouts.prover import ExactProver, Query, SampledProver
from mrt_pipeline.tasks.answers import last_boxed
from mrt_pipeline.tasks.base import Grade, Problem
from mrt_pipeline.tasks.math_problems import MathProblems
from mrt_pipeline.trainer.batch import TrainingSequence
from mrt_pipeline.trainer.learner import Learner, LearnerParams

ROOT = Path(__file__).parents[2]
OPENING = "\n\n**Final Answer**\n\n\\boxed{"
FREE = {"policy.template.natural_answer": "free"}


@pytest.fixture(scope="module")
def preset():
    """The R1 preset's parameters, with changes."""

    def compose(**changes):
        return Parameters.model_validate(
            compose_parameters(ROOT / "conf/base/parameters", {"preset": "r1_distill_numina", **changes})
        )

    return compose


@pytest.fixture(scope="module")
def tokenizer(reasoner):
    return load_tokenizer(reasoner, None, None)


@pytest.fixture(scope="module")
def bound(preset, tokenizer):
    """The R1 preset's template, with changes to its parameters."""

    def bind(**changes):
        return preset(**changes).policy.template.bind(tokenizer)

    return bind


@pytest.fixture(scope="module")
def grader():
    task = MathProblems(train=["unread.json"], evaluation=["unread.json"])
    yield task
    task.comparison.close()


@pytest.fixture
def reasoner_at_work(make_actor, tokenizer, grader):
    """An actor that reasons as in the R1 preset, with what an engine gives."""

    def make(engine, template, **limits):
        limits = {"thinking_budget": 64, "answer_tokens": 32} | limits
        return make_actor(Policy(None, tokenizer, template), engine, grader, **limits)

    return make


@pytest.fixture
def answered(preset, tokenizer, reasoner_at_work, scripted_engine, make_completion):
    """Rollouts of the R1 preset whose model thinks, closes its thought and answers as given."""

    def run(items, answers, **changes):
        parameters = preset(**changes)
        template = parameters.policy.template.bind(tokenizer)
        close = tokenizer.convert_tokens_to_ids("</think>")

        def ids(text):
            return tokenizer.encode(text, add_special_tokens=False)

        thoughts = [make_completion(ids(item["thought"]), close) for item in items]
        limit = template.answer_limit(parameters.rollout.answer_tokens, forced=False)
        written = [
            make_completion(ids(text)[:limit], tokenizer.eos_token_id if len(ids(text)) <= limit else None)
            for text in answers
        ]
        problems = [
            Problem(item["id"], "hand", "train", item["question"], (last_boxed(item["answer"]) or "no box",), {})
            for item in items
        ]
        engine = scripted_engine(thoughts, written)
        actor = reasoner_at_work(engine, template, **parameters.rollout.model_dump())
        return actor.sample(problems, 1, seed=0), engine

    return run


def test_the_prompt_asks_for_a_box_and_the_chat_template_opens_the_thought(answered, real_thoughts, tokenizer):
    (rollout,), _ = answered(real_thoughts[:1], ["64}"])
    assert tokenizer.decode(rollout.prompt) == (
        f"<｜begin▁of▁sentence｜><｜User｜>{real_thoughts[0]['question']}\nPlease reason step by step, and put your "
        "final answer within \\boxed{}.<｜Assistant｜><think>\n"
    )


def test_real_answers_are_read_by_their_last_box_when_they_are_written_freely(answered, real_thoughts, tokenizer):
    rollouts, engine = answered(real_thoughts, [item["answer"] for item in real_thoughts], **FREE)
    boxed = [last_boxed(item["answer"]) is not None for item in real_thoughts]
    assert sum(boxed) >= 6 and not all(boxed)
    read = [rollout.grade is Grade.CORRECT for rollout in rollouts]
    assert np.mean(np.array(read)[boxed]) > 0.9
    assert all(rollout.grade is Grade.UNPARSED for rollout, box in zip(rollouts, boxed, strict=True) if not box)
    assert all(tokenizer.decode(rollout.close) == "</think>" for rollout in rollouts)
    assert engine.calls[1]["params"].max_tokens == 1024


def test_an_opened_answer_continues_the_box_after_the_models_own_marker(answered, real_thoughts, tokenizer):
    items = [item for item in real_thoughts if last_boxed(item["answer"])]
    rollouts, engine = answered(items, [last_boxed(item["answer"]) + "}" for item in items])
    for rollout, asked in zip(rollouts, engine.calls[1]["prompts"], strict=True):
        assert tokenizer.decode(rollout.close) == f"</think>{OPENING}"
        assert asked == [*rollout.prompt, *rollout.thought, *rollout.close]
        n, c = len(rollout.thought), len(rollout.close)
        assert rollout.sampled()[n : n + c].tolist() == [True, *[False] * (c - 1)]  # the marker was chosen, no more
        assert rollout.logprobs()[n : n + c].tolist() == [-0.25, *[0.0] * (c - 1)]
        assert rollout.grade is Grade.CORRECT
    assert engine.calls[1]["params"].max_tokens == 32


def test_a_cut_thought_is_opened_by_the_stop_phrase_whatever_natural_answers_are(
    bound, tokenizer, reasoner_at_work, scripted_engine, make_completion
):
    close, ids = tokenizer.convert_tokens_to_ids("</think>"), tokenizer.encode("so 1")
    engine = scripted_engine(
        [make_completion(ids), make_completion(ids, close)],
        [make_completion(tokenizer.encode("7}"), tokenizer.eos_token_id), make_completion(tokenizer.encode("it is 7"))],
    )
    problem = Problem("p", "hand", "train", "?", ("7",), {})
    actor = reasoner_at_work(engine, bound(**FREE), thinking_budget=16)
    cut, natural = actor.sample([problem], 2, seed=0)
    assert tokenizer.decode(cut.close).endswith(f"</think>{OPENING}") and "Time is up" in tokenizer.decode(cut.close)
    assert cut.grade is Grade.CORRECT and natural.grade is Grade.UNPARSED  # no box, so no answer
    assert engine.calls[1]["max"] == [32, 1024]


@pytest.mark.parametrize(
    ("text", "ended", "read"),
    [
        ("So it is \\boxed{7}.", True, "So it is \\boxed{7}."),
        ("First \\boxed{3}, then \\boxed{7} and the", False, "First \\boxed{3}, then \\boxed{7} and "),
        ("So it is 7.", True, ""),
        ("So it is \\boxed{7", False, ""),
        ("So it is \\boxed{\\frac{1}{2}", True, ""),
        ("So it is \\boxed{\\frac{1}{2}}", True, "So it is \\boxed{\\frac{1}{2}}"),
        ("It is \\boxed{7}, no, \\boxed{8", False, "It is \\boxed{7}, no, \\boxed{"),
        ("", True, ""),
    ],
)
def test_what_counts_of_an_answer_that_is_written_freely(bound, text, ended, read):
    assert bound(**FREE).answer_text(text, ended, forced=False) == read


def test_free_answers_have_no_exact_probability(preset, bound, reasoner_at_work, scripted_engine):
    own = {"policy": "language_model", "policy.path": "x", "policy.template.natural_answer": "free", "task": "math"}
    own |= {"task.train": "[a.jsonl]", "task.evaluation": "[b.jsonl]"}
    with pytest.raises(InputError, match="natural_answer=free needs prover=sampled"):
        compose_parameters(ROOT / "conf/base/parameters", own)
    with pytest.raises(ValueError, match="written freely"):
        ExactProver().success(reasoner_at_work(scripted_engine(), bound(**FREE)), [])
    assert isinstance(preset(**FREE).prover, SampledProver)


def test_the_sampled_prover_asks_at_the_natural_end_as_the_policy_answers_there(
    bound, tokenizer, reasoner_at_work, scripted_engine, make_completion
):
    template = bound(**FREE)
    problem, thought = Problem("p", "hand", "train", "?", ("7",), {}), np.array(tokenizer.encode("so 1 and 6"))
    close = template.natural_close(template.close_ids[0])
    query = Query(problem, np.array([1]), thought, np.array([0, len(thought)]), len(thought), close)
    eos = tokenizer.eos_token_id
    texts = ("7}", "8}", "Thus \\boxed{7}.", "Thus 7.")
    engine = scripted_engine([make_completion(tokenizer.encode(text), eos) for text in texts])
    (found,) = SampledProver(n_answers=2).success(reasoner_at_work(engine, template), [query])
    assert found.mean.tolist() == [0.5, 0.5]
    assert engine.calls[0]["prompts"] == [[1, *template.stop_phrase], [1, *thought, *close]]
    assert engine.calls[0]["max"] == [32, 1024]


@pytest.fixture(scope="module")
def two_ways(make_actor, warm_policy):
    """The warm policy, where being stopped is another text than closing the thought."""
    phrase = tuple(warm_policy.tokenizer.encode("low high 7 </think>", add_special_tokens=False))
    template = dataclasses.replace(warm_policy.template, stop_phrase=phrase)
    return make_actor(warm_policy, template=template, thinking_budget=40)


@pytest.fixture(scope="module")
def labelled(two_ways, known_problems):
    rollouts = two_ways.sample(known_problems, 40, seed=0)
    rollouts += two_ways.sample(known_problems, 10, seed=1, min_thinking=40)
    cuts = [[rollout.natural_length] for rollout in rollouts]
    return label_rollouts(two_ways, ExactProver(), rollouts, 0, cuts)


def test_j_is_that_of_the_natural_answer_at_the_natural_end_and_of_a_stopped_one_elsewhere(
    labelled, warm_policy, two_ways, continuation_logprob
):
    template = two_ways.template
    ends = different = 0
    for item in labelled[::3]:
        rollout = item.rollout
        for cut, success in zip([*item.boundaries, *item.cuts], [*item.success, *item.at_cuts], strict=True):
            natural = cut == len(rollout.thought) and rollout.stop_reason == "stop"
            by_suffix = [
                sum(
                    np.exp(
                        continuation_logprob(
                            warm_policy.model,
                            [*rollout.prompt, *rollout.thought[:cut], *suffix],
                            [*warm_policy.tokenizer.encode(answer, add_special_tokens=False), template.eos_id],
                        )
                    )
                    for answer in rollout.problem.answers
                )
                for suffix in ((template.close_ids[0],), template.stop_phrase)
            ]
            assert success == pytest.approx(by_suffix[0 if natural else 1], abs=1e-4)
            ends += bool(natural)
            different += abs(by_suffix[0] - by_suffix[1]) > 0.002
    assert ends > 20 and different > 20


def test_the_expected_outcome_is_the_mean_reward_of_the_policys_own_answers(labelled, task, two_ways):
    n, checked = 3_000, 0
    algorithm = MRTOnline(alpha=0.0, gamma=0.0, expected_outcome=True)
    for item in labelled[:40:8]:
        rollout = item.rollout
        if rollout.stop_reason != "stop":
            continue
        context = [*rollout.prompt, *rollout.thought, two_ways.template.close_ids[0]]
        answers = two_ways.sample_answers([context], [False], seed=5, n=n)
        texts = [two_ways.tokenizer.decode(a.token_ids) if a.stop_token_id is not None else "" for a in answers]
        mean = np.mean([task.grade(rollout.problem, text).reward for text in texts])
        used = rollout.reward - algorithm.weights([item])[0][-1]  # the answer's weight is r - J
        assert used == pytest.approx(item.success[-1], abs=1e-12)
        assert abs(mean - used) < 4.5 * np.sqrt(used * (1 - used) / n) + 1e-3
        checked += 0.02 < used < 0.98
    assert checked > 1


def test_a_trace_that_ends_inside_its_thought_is_worth_nothing_when_it_stops_there(
    scripted_engine, make_completion, make_actor, warm_policy, problems
):
    template, tokenizer = warm_policy.template, warm_policy.tokenizer

    def sample(*replies):
        return make_actor(warm_policy, scripted_engine(*replies), thinking_budget=8).sample(problems[:1], 1, seed=0)

    ids = tokenizer.encode("wait 1", add_special_tokens=False)
    (rollout,) = sample([make_completion(ids, template.eos_id)], [])
    assert (rollout.stop_reason, rollout.stopped_at, rollout.stopped_reward) == ("eos", 2, 0.0)
    # Forced on, what it chose there was to end the trace.
    wait = list(template.extensions[0])
    held = make_completion([*ids, *wait], natural_length=2, choices=[*ids, template.eos_id])
    answer = make_completion(tokenizer.encode(problems[0].answers[0], add_special_tokens=False), template.eos_id)
    (rollout,) = sample([held], [answer])
    assert (rollout.stop_reason, rollout.stopped_at, rollout.stopped_reward) == ("length", 2, 0.0)
    assert rollout.reward == 1 and len(rollout.natural_close) == 0


def test_answers_that_are_to_be_imitated_follow_the_policys_own_close(
    scripted_engine, make_completion, bound, tokenizer, reasoner_at_work
):
    template = bound()
    thought = np.array(tokenizer.encode("so 1 and 6"))
    engine = scripted_engine([make_completion([])], [make_completion(tokenizer.encode("7}"), tokenizer.eos_token_id)])
    problem = Problem("p", "hand", "train", "?", ("7",), {})
    actor = reasoner_at_work(engine, template)
    (rollout,) = actor.sample([problem], 1, 0, prefixes=[thought], direct=[True], closed=True)
    assert tokenizer.decode(rollout.close) == f"</think>{OPENING}"
    assert not rollout.sampled()[: len(thought) + len(rollout.close)].any()  # nobody chose to close it
    prompt = encode_prompt(tokenizer, template, "?")
    assert engine.calls[1]["prompts"] == [[*prompt, *thought, *template.close]]
    assert rollout.grade is Grade.CORRECT


class Listening:
    """The exact prover, which keeps what it was asked."""

    def __init__(self):
        self.asked = []

    def success(self, actor, queries, seed):
        self.asked += queries
        return ExactProver().success(actor, queries, seed)


def test_tables_ask_at_the_first_attempt_to_stop_as_the_policy_would_have_answered(labelled, two_ways, known_problems):
    """Of evaluation's forced traces, too: there the natural end is where it first tried, not where the thought ends."""
    prover = Listening()
    rollouts = [item.rollout for item in labelled if item.rollout.problem == known_problems[0]]
    label_rollouts(two_ways, prover, rollouts, 0, [[len(r.thought)] for r in rollouts], at_natural_end=True)
    forced_on = 0
    for query, rollout in zip(prover.asked, rollouts, strict=True):
        natural = query.cuts[~query.forced].tolist()
        assert natural == ([rollout.natural_length] if len(rollout.natural_close) else [])
        forced_on += bool(natural and natural[0] < len(rollout.thought))
        assert query.natural_close == tuple(rollout.natural_close)
    assert forced_on > 3
    closed = [rollout for rollout in rollouts if rollout.stop_reason == "stop" and rollout.natural_length > 0]
    assert closed
    for rollout in closed:  # without its close, it is asked as if the policy had been stopped there
        query = Query(rollout.problem, rollout.prompt, rollout.thought, np.array([len(rollout.thought)]))
        assert query.forced.all() and query.natural_close == ()


@pytest.fixture(scope="module")
def written(preset, reasoner, tokenizer, grader, real_thoughts, make_actor):
    """Rollouts of the R1 preset by a toy that has learnt a few real thoughts and answers by heart."""
    parameters = preset(**FREE)
    template = parameters.policy.template.bind(tokenizer)
    items = [item for item in real_thoughts if last_boxed(item["answer"])]
    problems = [
        Problem(item["id"], "hand", "train", item["question"], (last_boxed(item["answer"]),), {}) for item in items
    ]
    sequences = []
    for item, problem in zip(items, problems, strict=True):
        prompt = encode_prompt(tokenizer, template, problem.question)
        rest = [*tokenizer.encode(f"{item['thought']}</think>{item['answer']}"), tokenizer.eos_token_id]
        weights = np.ones(len(rest))
        sequences.append(TrainingSequence(np.array([*prompt, *rest]), len(prompt), weights, weights > 0))
    model = load_language_model(reasoner, None, "float32")
    settings = LearnerParams(learning_rate=1e-2, optimizer="muon", muon_learning_rate=0.05, schedule="cosine")
    learner = Learner(model, settings)
    for step in range(140):
        learner.update(sequences, step / 140, seed=step)
    limits = parameters.rollout.within(300).model_dump()
    return make_actor(Policy(model, tokenizer, template), game=grader, **limits).sample(problems, 8, seed=0)


@pytest.mark.long
def test_nine_of_ten_natural_answers_with_a_box_are_read_from_a_toy_that_writes_them(written, tokenizer):
    natural = [rollout for rollout in written if rollout.stop_reason == "stop"]
    boxed = [rollout for rollout in natural if last_boxed(tokenizer.decode(rollout.answer)) is not None]
    assert len(boxed) > 0.4 * len(written)
    assert np.mean([len(rollout.answer) > 32 for rollout in boxed]) > 0.9  # more than an opened answer may have
    assert np.mean([rollout.grade is not Grade.UNPARSED for rollout in boxed]) > 0.9
    assert np.mean([rollout.reward for rollout in boxed]) > 0.5
