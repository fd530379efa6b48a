import os
import time

import pytest

from mrt_pipeline.tasks.base import Grade
from mrt_pipeline.tasks.math_grader import MathGrader


@pytest.fixture(scope="module")
def grader():
    grader = MathGrader(deadline=30.0)  # so that a busy machine changes no verdict
    yield grader
    grader.close()


@pytest.mark.parametrize(
    ("gold", "answer", "grade"),
    [
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
    ],
)
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
    os.kill(grader._child.pid, 9)
    assert grader.grade(["x"], "y+2") is Grade.FAILED
    assert grader.grade(["x+y"], "y+x") is Grade.CORRECT
