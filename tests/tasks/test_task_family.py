"""The tasks as members of a family: found by name, with the defaults that ship as parameters."""

import subprocess
import sys

import pytest

from mrt_pipeline.config import class_defaults
from mrt_pipeline.errors import InputError
from mrt_pipeline.tasks.base import Grade, Problem, ScratchTask, Task

NAMES = ["countdown", "countdown_backtracking", "countdown_parts", "countdown_words", "math", "reasoning_gym"]
NEEDED = {"math": {"train": ["a.json"], "evaluation": ["b.json"]}, "reasoning_gym": {"generator": "chain_sum"}}


@pytest.mark.parametrize("name", NAMES)
def test_a_name_gives_the_task_with_the_defaults_that_ship(name):
    task = Task.model_validate({"name": name, **NEEDED.get(name, {})})
    shipped = class_defaults("task", name) | NEEDED.get(name, {})
    assert type(task).model_validate(shipped) == task
    assert set(shipped) == set(type(task).model_fields)
    assert {"n_train", "n_validation", "n_test"} <= set(shipped)


def test_all_names_are_known():
    assert set(NAMES) <= set(Task.names())
    with pytest.raises(InputError, match=f"unknown task 'sudoku'; known are .*{NAMES[0]}"):
        Task.member("sudoku")


@pytest.mark.parametrize(("name", "n_numbers", "longest"), [(NAMES[0], 3, 5), (NAMES[0], 4, 7), (NAMES[1], 4, 10)])
def test_the_longest_answer_is_as_long_as_any(name, n_numbers, longest):
    task = Task.member(name)(n_numbers=n_numbers, max_number=5, n_train=3, n_validation=2, n_test=2)
    assert {len(answer.split()) for problem in task.problems() for answer in problem.answers} == {longest}
    assert task.longest_answer == longest


def test_only_countdown_is_made_from_scratch():
    assert [issubclass(Task.member(name), ScratchTask) for name in NAMES] == [True, True, True, False, False, False]


def test_targets_that_cross_are_refused():
    with pytest.raises(ValueError, match="target_min 50 exceeds target_max 20"):
        Task.model_validate({"name": "countdown", "target_min": 50, "target_max": 20})


def test_a_task_needs_problems_and_a_grade_and_nothing_else():
    class Echo(Task):
        name: str = "echo_for_a_test"

        def problems(self):
            return [Problem("1", "echo", "train", "hello", ("hello",))]

        def grade(self, problem, answer):
            return Grade.CORRECT if answer == problem.question else Grade.WRONG

    try:
        task = Task.model_validate({"name": "echo_for_a_test"})
        assert task.read(" hello\n") == "hello"
        assert task.trace_metrics(["hello"]) == {} and task.longest_answer == 1
    finally:
        del Task._members["echo_for_a_test"]


def test_countdown_works_where_only_the_library_is_installed():
    absent = ["pandas", "pandera", "scipy", "plotly", "math_verify", "sympy", "datasets"]
    absent += ["kedro", "kedro_datasets", "mlflow", "hydra", "omegaconf"]
    code = f"""
import sys
sys.modules.update(dict.fromkeys({absent}))
import numpy as np
from mrt_pipeline.tasks.base import Task
for name in {NAMES[:4]}:
    task = Task.member(name)(n_train=3, n_validation=2, n_test=2)
    problem = task.problems()[0]
    task.search_trace(problem, np.random.default_rng(0))
    assert task.grade(problem, problem.answers[0]).reward == 1
"""
    subprocess.run([sys.executable, "-c", code], check=True, timeout=300)
