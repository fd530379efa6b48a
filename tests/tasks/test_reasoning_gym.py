from collections import Counter

import pytest

from mrt_pipeline.errors import InputError
from mrt_pipeline.tasks.base import Grade
from mrt_pipeline.tasks.math_problems import normalize_question
from mrt_pipeline.tasks.reasoning_gym import ReasoningGym

SUMS = {
    "operators": ["+"],
    "allow_parentheses": False,
    "allow_negation": False,
    "format_style": "simple",
    "min_terms": 2,
    "max_terms": 4,
    "min_digits": 1,
    "max_digits": 1,
}


@pytest.fixture(scope="module")
def task():
    return ReasoningGym(generator="basic_arithmetic", config=SUMS, n_train=300, n_validation=60, n_test=90)


def test_the_splits_have_their_sizes_and_share_no_question(task):
    problems = task.problems()
    assert Counter(problem.split for problem in problems) == {"train": 300, "validation": 60, "test": 90}
    questions = [normalize_question(problem.question) for problem in problems]
    assert len(set(questions)) == len({problem.problem_id for problem in problems}) == 450
    assert problems == task.problems()


def test_rare_problems_are_in_every_split_alike(task):
    """Of sums of two numbers there are few, so that they are drawn early."""
    share = {}
    for split in ("train", "test"):
        lengths = [problem.question.count("+") + 1 for problem in task.problems() if problem.split == split]
        share[split] = lengths.count(2) / len(lengths)
    assert share["train"] > 0.1 and abs(share["train"] - share["test"]) < 0.12


def test_answers_are_graded(task):
    problem = task.problems()[0]
    assert task.grade(problem, problem.answers[0]) is Grade.CORRECT
    assert task.grade(problem, str(int(problem.answers[0]) + 1)) is Grade.WRONG


@pytest.mark.parametrize(
    ("generator", "config", "named"),
    [
        ("no_such_puzzle", {}, "no_such_puzzle"),
        ("basic_arithmetic", {"min_terms": 9, "max_terms": 2}, "min_terms"),
        ("basic_arithmetic", SUMS | {"max_terms": 2}, "only"),
    ],
)
def test_what_cannot_be_made_is_refused_in_words(generator, config, named):
    with pytest.raises(InputError, match=named):
        ReasoningGym(generator=generator, config=config, n_train=300, n_validation=60, n_test=90).problems()
