import json
import os
import time
from typing import Literal

import pytest

from mrt_pipeline.tasks.base import Grade, Problem
from mrt_pipeline.tasks.math_grader import MathAnswers, MathGrader

COMPARED = [
    ("27", "27.0", Grade.CORRECT),
    ("27", "28", Grade.WRONG),
    ("27", "a lot", Grade.WRONG),
    ("\\frac{1}{2}", "0.5", Grade.CORRECT),
    ("\\frac{1}{2}", "1/2", Grade.CORRECT),
    ("\\sqrt{8}", "2\\sqrt{2}", Grade.CORRECT),
    ("x+1", "1+x", Grade.CORRECT),
    ("x+1", "x-1", Grade.WRONG),
    ("\\left( 3, \\frac{\\pi}{2} \\right)", "(3, \\pi/2)", Grade.CORRECT),
    ("5", "", Grade.UNPARSED),
    ("[0, \\frac{1}{2})", "\\left[0, 0.5\\right)", Grade.CORRECT),
    ("\\frac{x+1}{2}", "\\frac{x}{2}", Grade.WRONG),
]


@pytest.fixture(scope="module")
def grader():
    grader = MathGrader(deadline=30.0)  # so that a busy machine changes no verdict
    yield grader
    grader.close()


@pytest.fixture
def pool(monkeypatch):
    """A grader with three children, whatever the machine has."""
    monkeypatch.setattr("mrt_pipeline.tasks.math_grader.usable_cores", lambda: 3)
    grader = MathGrader(deadline=30.0)
    yield grader
    grader.close()


def started(grader):
    return [child for child in grader.children if child.process]


@pytest.mark.parametrize(("gold", "answer", "grade"), COMPARED)
def test_answers_are_compared_as_mathematics(grader, gold, answer, grade):
    assert grader.grade([gold], answer) is grade


def test_any_of_the_gold_answers_will_do(grader):
    assert grader.grade(["3", "x+1"], "1+x") is Grade.CORRECT


def test_an_answer_that_hangs_costs_the_deadline_and_is_not_a_reward(grader, monkeypatch):
    grader.grade(["x"], "y")  # the child is there
    with monkeypatch.context() as short:
        short.setattr(grader, "deadline", 1.0)
        started = time.monotonic()
        assert grader.grade(["9"], "9^{9^{9^{9^9}}}") is Grade.FAILED
        assert time.monotonic() - started < grader.deadline + 2.0
    assert grader.grade(["x+1"], "1+x") is Grade.CORRECT  # and the next one is graded


def test_a_second_time_the_same_comparison_is_remembered(grader, monkeypatch):
    monkeypatch.setattr(grader, "deadline", 1.0)
    grader.grade(["9"], "9^{9^{9^{9^8}}}")
    started = time.monotonic()
    assert grader.grade(["9"], "9^{9^{9^{9^8}}}") is Grade.FAILED
    assert time.monotonic() - started < 0.5


@pytest.mark.parametrize(
    "call", ["__import__('os').mkdir('{}')", "\\text{{__import__('os').mkdir('{}')}}", "exec('{}')"]
)
def test_an_answer_is_never_run(grader, tmp_path, call):
    target = tmp_path / "made"
    assert grader.grade(["5"], call.format(target)) is not Grade.CORRECT
    assert not target.exists()


def test_a_child_that_dies_is_a_status_and_is_replaced(grader):
    grader.grade(["x"], "y+1")
    os.kill(grader.children[0].process.pid, 9)
    assert grader.grade(["x"], "y+2") is Grade.FAILED
    assert grader.grade(["x+y"], "y+x") is Grade.CORRECT


def test_many_answers_get_the_grades_that_they_get_one_by_one_in_their_order(grader, pool):
    golds, answers, grades = (list(column) for column in zip(*COMPARED, strict=True))
    golds = [[gold] for gold in golds]
    assert pool.grade_all(golds, answers) == grades
    assert pool.grade_all(golds[::-1], answers[::-1]) == grades[::-1]
    assert [grader.grade(*pair) for pair in zip(golds, answers, strict=True)] == grades
    assert len(started(pool)) == 3
    assert pool.grade_all([], []) == []


def test_no_more_children_are_started_than_there_are_questions(pool):
    assert pool.grade_all([["x"]] * 4, ["x", "y", "2", "y"]) == [Grade.CORRECT, *[Grade.WRONG] * 3]
    first = [child.process.pid for child in started(pool)]
    assert len(first) <= 2
    assert pool.grade(["x+1"], "1+x") is Grade.CORRECT
    assert [child.process.pid for child in started(pool)] == first


def test_a_question_is_asked_once_however_often_it_comes(pool, monkeypatch):
    asked = []
    monkeypatch.setattr(pool, "_judged", lambda request: asked.append(request) or True)
    assert pool.grade_all([["x+1"]] * 5, ["1+x", "y+1", "1+x", "1+x", "y+1"]) == [Grade.CORRECT] * 5
    pool.grade(["x+1"], "1+x")
    assert len(asked) == 2


def test_what_is_remembered_is_bounded(pool, monkeypatch):
    monkeypatch.setattr("mrt_pipeline.tasks.math_grader._MAX_KNOWN", 2)
    monkeypatch.setattr(pool, "_judged", lambda request: "x3" in request)
    answers = [f"x{i}" for i in range(5)]
    assert pool.grade_all([["y"]] * 5, answers) == [Grade.CORRECT if a == "x3" else Grade.WRONG for a in answers]
    assert len(pool._known) == 2


def test_answers_that_hang_do_so_side_by_side_and_those_that_wait_for_them_have_their_own_deadline(pool, monkeypatch):
    pool.grade_all([["x"]] * 3, ["y+1", "y+2", "y+3"])  # the children are there
    monkeypatch.setattr(pool, "deadline", 4.0)
    hanging, fine = [f"9^{{9^{{9^{{9^{i}}}}}}}" for i in (5, 6, 7)], [f"{i}+x" for i in range(1, 9)]
    golds = [["9"]] * 3 + [[f"x+{i}"] for i in range(1, 9)]
    began = time.monotonic()
    assert pool.grade_all(golds, [*hanging, *fine]) == [Grade.FAILED] * 3 + [Grade.CORRECT] * 8
    assert 4.0 <= time.monotonic() - began < 8.0


def test_children_that_died_cost_one_answer_each_and_are_replaced(pool):
    pool.grade_all([["x"]] * 3, ["y+4", "y+5", "y+6"])
    dead = [child.process.pid for child in started(pool)]
    for pid in dead:
        os.kill(pid, 9)
    grades = pool.grade_all([[f"x+{i}"] for i in range(8)], [f"{i}+x" for i in range(8)])
    assert set(grades) == {Grade.CORRECT, Grade.FAILED}
    assert grades.count(Grade.FAILED) <= len(dead)


def test_the_verdict_of_a_child_does_not_depend_on_what_it_was_asked_before(pool):
    pool.grade_all([["x"]] * 3, ["y+1", "y+2", "y+3"])
    questions = [[[gold], answer] for gold, answer, _ in COMPARED if answer]
    verdicts = [
        [child.judge(json.dumps([30.0, *question]), 60.0) for question in order]
        for child, order in zip(pool.children, (questions, questions[::-1], questions), strict=True)
    ]
    assert verdicts[0] == verdicts[1][::-1] == verdicts[2]


def test_a_class_with_a_grade_of_its_own_is_asked_by_it():
    class Lenient(MathAnswers):
        name: Literal["lenient"] = "lenient"

        def problems(self):
            return []

        def grade(self, problem, answer):
            return Grade.CORRECT if "42" in answer else super().grade(problem, answer)

    problem = Problem("p", "s", "train", "q", ("7",))
    assert Lenient().grade_all([problem] * 3, ["42", "7", "8"]) == [Grade.CORRECT, Grade.CORRECT, Grade.WRONG]
