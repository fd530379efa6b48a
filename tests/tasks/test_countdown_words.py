import re
from collections import Counter
from itertools import permutations, product

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from mrt_pipeline.tasks.base import Grade
from mrt_pipeline.tasks.countdown_words import CountdownWords

TASK = CountdownWords(n_train=60, n_validation=10, n_test=10)
PROBLEMS = TASK.problems()
SIGNS = {"+": lambda a, b: a + b, "-": lambda a, b: a - b, "*": lambda a, b: a * b}
STEP = re.compile(r"(\d+) ([+*-]) (\d+) = (\d+)")


def problem():
    found = next(p for p in CountdownWords().problems() if p.metadata["numbers"] == [3, 7, 12])
    metadata = found.metadata | {"target": 48}
    return found.__class__("p", "countdown_words", "test", "Make 48 from 3, 7 and 12.", ("(7 - 3) * 12",), metadata)


def test_the_question_says_all_there_is_to_know():
    for asked in PROBLEMS:
        first, *_ = asked.question.split(".")
        target, *numbers = (int(number) for number in re.findall(r"\d+", first))
        assert (target, numbers) == (asked.metadata["target"], asked.metadata["numbers"])
        assert "exactly once" in asked.question and asked.answers


def test_every_listed_answer_is_correct_and_so_is_every_expression_that_makes_the_target():
    for asked in PROBLEMS[:20]:
        assert {TASK.grade(asked, answer) for answer in asked.answers} == {Grade.CORRECT}
        for (a, b, c), (first, second) in product(permutations(asked.metadata["numbers"]), product(SIGNS, repeat=2)):
            left, right = SIGNS[second](SIGNS[first](a, b), c), SIGNS[first](a, SIGNS[second](b, c))
            for text, value in ((f"({a} {first} {b}) {second} {c}", left), (f"{a} {first} ({b} {second} {c})", right)):
                expected = Grade.CORRECT if value == asked.metadata["target"] else Grade.WRONG
                assert TASK.grade(asked, f"So \\boxed{{{text}}}") is expected


@pytest.mark.parametrize(
    ("text", "grade"),
    [
        ("\n\nThe answer is \\boxed{(7 - 3) * 12}.", Grade.CORRECT),
        ("\\boxed{12 \\times (7-3)}", Grade.CORRECT),
        ("The answer is 12*(7-3).", Grade.CORRECT),
        ("((7 - 3)) * (12)", Grade.CORRECT),
        ("\\boxed{7 - 3 * 12}", Grade.WRONG),
        ("\\boxed{4 * 12}", Grade.WRONG),  # not the numbers
        ("\\boxed{(7 - 3) * 12 + 0}", Grade.WRONG),
        ("\\boxed{(7 - 3) * 12 + 3 - 3}", Grade.WRONG),
        ("\\boxed{48}", Grade.WRONG),
        ("\\boxed{(7 - 3) * 12 = 48}", Grade.UNPARSED),
        ("\\boxed{(7 - 3 * 12}", Grade.UNPARSED),
        ("\\boxed{-3 + 7}", Grade.UNPARSED),
        ("\\boxed{7 / 3}", Grade.UNPARSED),
        ("\\boxed{" + "(" * 99 + "7" + ")" * 99 + "}", Grade.UNPARSED),
        ("\\boxed{9**9**9}", Grade.UNPARSED),
        ("\\boxed{__import__('os')}", Grade.UNPARSED),
        ("", Grade.UNPARSED),
        ("I do not know.\nSorry", Grade.UNPARSED),
    ],
)
def test_grades(text, grade):
    assert TASK.grade(problem(), text) is grade


@given(st.text(max_size=80) | st.text(alphabet="()+-*0123456789 \\{}boxed", max_size=60))
def test_grading_any_text_never_fails(text):
    assert isinstance(TASK.grade(PROBLEMS[0], text), Grade)


def test_a_search_calculates_rightly_and_answers_with_what_it_found():
    rng, grades = np.random.default_rng(0), Counter()
    for asked in PROBLEMS * 10:
        trace = TASK.search_trace(asked, rng)
        *paragraphs, end = trace.thought.split("\n\n")
        assert end == "" and 1 <= len(paragraphs) <= TASK.max_attempts
        assert paragraphs[0].startswith("Let me try ") and trace.answer.startswith("\n\nThe answer is \\boxed{")
        works = False
        for i, paragraph in enumerate(paragraphs):
            steps = [(int(a), sign, int(b), int(value)) for a, sign, b, value in STEP.findall(paragraph)]
            assert [SIGNS[sign](a, b) for a, sign, b, _ in steps] == [value for *_, value in steps] and len(steps) == 2
            verdict = paragraph.rpartition(". ")[2]
            last, target = steps[-1][-1], asked.metadata["target"]
            assert verdict == ("That works." if last == target else "Too low." if last < target else "Too high.")
            assert i == 0 or paragraph.startswith(("Wait, ", "But wait, ", "Alternatively, "))
            works = works or last == target
        grade = TASK.grade(asked, trace.answer)
        assert grade is (Grade.CORRECT if works else Grade.WRONG)
        grades[grade] += 1
    assert min(grades.values()) > 100


def test_votes_count_one_expression_once_however_it_is_spaced():
    assert TASK.read("\\boxed{(7 - 3)*12}") == TASK.read("The answer is (7-3) \\times 12.") == "(7-3)*12"
