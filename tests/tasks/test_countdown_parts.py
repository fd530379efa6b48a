import re
from collections import Counter
from itertools import product

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from mrt_pipeline.errors import InputError
from mrt_pipeline.policy.policy import build_policy
from mrt_pipeline.tasks.base import Grade
from mrt_pipeline.tasks.countdown_parts import CountdownParts

OPERATIONS = {"+": lambda a, b: a + b, "*": lambda a, b: a * b, "-": lambda a, b: max(a, b) - min(a, b)}
TWO = CountdownParts(parts=2, n_train=2, n_validation=2, n_test=2)
PROBLEM = TWO.problems()[0]
ATTEMPT = re.compile(r"wait p(\d) (\d+) (.) (\d+) =(\d+) (.) (\d+) =(\d+) (low|high|yes (\S\S))")


@pytest.fixture(scope="module", params=[1, 3, 6])
def task(request):
    return CountdownParts(parts=request.param, n_train=200, n_validation=40, n_test=60)


@pytest.fixture(scope="module")
def problems(task):
    return task.problems()


def parts_of(problem):
    """Numbers and target of each part, read from the question."""
    texts = re.split(r"p\d ", problem.question)[1:]
    return [tuple(int(number) for number in re.findall(r"\d+", text)) for text in texts]


def results(a, b, c, pair):
    first = OPERATIONS[pair[0]](a, b)
    return first, OPERATIONS[pair[1]](first, c)


def test_six_pairs_are_allowed_in_every_part_and_one_of_them_is_the_answer(task, problems):
    for problem in problems:
        assert len(problem.answers) == 1
        given_parts = parts_of(problem)
        assert len(given_parts) == task.parts == problem.metadata["n_parts"]
        for (a, b, c, target), answer in zip(given_parts, problem.answers[0].split(), strict=True):
            values = {
                first + second: results(a, b, c, first + second) for first, second in product(OPERATIONS, repeat=2)
            }
            allowed = {pair: last for pair, (first, last) in values.items() if max(first, last) <= 50}
            assert len(allowed) == 6
            assert [pair for pair, last in allowed.items() if last == target] == [answer]


def test_splits_share_no_numbers_of_a_part_and_no_problem_is_there_twice(task, problems):
    triples = {split: set() for split in ("train", "validation", "test")}
    for problem in problems:
        triples[problem.split] |= {part[:3] for part in parts_of(problem)}
    assert not triples["train"] & triples["test"] and not triples["train"] & triples["validation"]
    assert not triples["validation"] & triples["test"]
    assert len({problem.problem_id for problem in problems}) == len(problems)
    assert Counter(problem.split for problem in problems) == {"train": 200, "validation": 40, "test": 60}
    assert problems == task.problems() != task.model_copy(update={"seed": 1}).problems()


def test_only_the_answer_is_correct(task, problems):
    problem = problems[0]
    answer = problem.answers[0]
    assert task.grade(problem, answer) is Grade.CORRECT
    wrong = " ".join(["++" if answer.split()[0] != "++" else "--", *answer.split()[1:]])
    assert task.grade(problem, wrong) is Grade.WRONG
    for text in (
        "",
        answer + " ++",
        answer + "\n",
        answer.replace(" ", "  ") + " ",
        "+",
        "++" * 3,
        "7 + 3",
        "</think>",
    ):
        assert task.grade(problem, text) is Grade.UNPARSED
    assert task.longest_answer == len(answer.split())


@given(st.text(max_size=60) | st.text(alphabet="+-* \n", max_size=40) | st.just("++ " * 1_000_000))
def test_grading_any_text_never_fails(text):
    task, problem = TWO, PROBLEM
    assert task.grade(problem, text) in (Grade.UNPARSED, Grade.WRONG, Grade.CORRECT)
    assert (task.grade(problem, text) is Grade.CORRECT) == (text == problem.answers[0])


def test_a_search_calculates_rightly_and_answers_by_what_it_found(task, problems):
    rng = np.random.default_rng(0)
    vocabulary = {*task.symbols()}
    lengths, found_all = [], 0
    for problem in problems * 3:
        trace = task.search_trace(problem, rng)
        assert {*trace.thought.split(), *trace.answer.split(), *problem.question.split()} <= vocabulary
        lengths.append(len(trace.thought.split()))
        found, failed = {}, {i: set() for i in range(task.parts)}
        for i, a, first, b, middle, second, c, last, verdict, said in ATTEMPT.findall(trace.thought):
            numbers, target = parts_of(problem)[int(i) - 1][:3], parts_of(problem)[int(i) - 1][3]
            assert (int(a), int(b), int(c)) == numbers
            assert results(*numbers, first + second) == (int(middle), int(last))
            assert verdict.split()[0] == ("yes" if int(last) == target else "low" if int(last) < target else "high")
            if said:
                assert said == first + second
                found[int(i) - 1] = said
            else:
                failed[int(i) - 1].add(first + second)
        for i, pair in enumerate(trace.answer.split()):
            assert pair == found[i] if i in found else pair not in failed[i]
        if len(found) == task.parts:
            found_all += 1
            assert task.grade(problem, trace.answer) is Grade.CORRECT
    assert 0 < found_all < len(lengths)
    assert max(lengths) <= 12 * task.max_attempts


def test_a_part_that_nothing_is_known_of_is_guessed_in_one_of_six():
    task = CountdownParts(parts=1, n_train=200, n_validation=2, n_test=2, cut_fraction=1.0, max_attempts=1)
    rng = np.random.default_rng(0)
    right = [
        task.grade(problem, trace.answer).reward
        for problem in task.problems() * 10
        if len((trace := task.search_trace(problem, rng)).thought.split()) < 10  # cut before the verdict
    ]
    assert len(right) > 1000
    assert abs(np.mean(right) - 1 / 6) < 4 * np.sqrt(5 / 36 / len(right))


def test_the_share_of_parts_found_counts_each_part_once():
    task = CountdownParts(parts=3, n_train=2, n_validation=2, n_test=2)
    attempts = ["wait p1 2 + 14 =16 - 6 =10 yes +-", "wait p2 1 + 1 =2 + 1 =3 low", "wait p3 1 + 1 =2 + 1 =3 yes ++"]
    assert task.trace_metrics([" ".join([attempts[0], *attempts, attempts[2][:-7]]), ""]) == {
        "parts_found": pytest.approx(1 / 3)
    }
    assert task.trace_metrics([]) == {}


def test_the_symbols_make_a_policy_and_traces_fit_its_default_context():
    task = CountdownParts(parts=6, n_train=300, n_validation=2, n_test=2, long_fraction=1.0, cut_fraction=0.0)
    policy = build_policy(task.symbols(), task.markers, task.template, 24, 1, 1, 32, 704, 0)
    rng = np.random.default_rng(0)
    for problem in task.problems()[-100:]:
        trace = task.search_trace(problem, rng)
        ids = policy.tokenizer(f"{problem.question} <think> {trace.thought} </think> {trace.answer}")["input_ids"]
        assert policy.tokenizer.unk_token_id not in ids and len(ids) < 704


def test_too_few_parts_are_refused_naming_what_to_raise():
    with pytest.raises(InputError, match=r"task.max_number"):
        CountdownParts(max_number=3).problems()
