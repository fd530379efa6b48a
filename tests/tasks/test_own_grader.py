"""A grader of the user's on problems of the user's: `task.grader`."""

import copy
import json
import logging
import os
import subprocess
import sys
import time
from pathlib import Path

import pytest

import mrt_pipeline
from mrt_pipeline.errors import InputError
from mrt_pipeline.tasks.base import Grade, Problem
from mrt_pipeline.tasks.math_grader import MAX_OWN_CHARS
from mrt_pipeline.tasks.math_problems import MathProblems

PROBLEM = Problem("a-1", "a", "train", "Say the word.", ("fish",), {"level": 3, "kind": "noun"})
GRADERS = """
import os, subprocess, sys, time

print("this must not reach the protocol")


def grade(answer, problem):
    print("nor this")
    return answer.strip().upper() == problem["answers"][0].upper()


def shows(answer, problem):
    return problem == {"question": "Say the word.", "answers": ["fish"], "metadata": {"level": 3, "kind": "noun"}}


def raw(answer, problem):
    return answer == "  It is\\n\\\\boxed{ fish } \\U0001f41f "


def hangs(answer, problem):
    while True:
        pass


def starts_another(answer, problem):
    child = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(600)"])
    with open("pid", "w") as file:
        file.write(str(child.pid))
    child.wait()


def raises(answer, problem):
    raise KeyError(answer)


def exits(answer, problem):
    sys.exit(0)


def dies(answer, problem):
    os._exit(0)


def aborts(answer, problem):
    os.abort()


def string(answer, problem):
    return "True"


def one(answer, problem):
    return 1


def nothing(answer, problem):
    pass


def memory(answer, problem):
    return len(bytearray(64 * 1024**3)) > 0


def reads(answer, problem):
    return sys.stdin.read() == ""


def counts(answer, problem):
    with open("calls", "a") as file:
        file.write("x")
    return True


def moody(answer, problem):
    if answer == "hang":
        time.sleep(600)
    return answer == "fish"


def remembers(answer, problem):
    seen.append(answer)
    return len(seen) == 1


seen = []


def one_argument(answer):
    return True


number = 3
"""


@pytest.fixture
def folder(tmp_path, monkeypatch):
    """A working directory with graders and a file of problems in it."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "my_graders.py").write_text(GRADERS)
    (tmp_path / "a.json").write_text(json.dumps([{"problem": f"{i} + 1?", "answer": str(i + 1)} for i in range(9)]))
    (tmp_path / "b.json").write_text(json.dumps([{"problem": "1 + 1 + 1?", "answer": "3"}]))
    return tmp_path


@pytest.fixture
def make_task(folder):
    """A task with a grader of `my_graders`, or of another module."""
    made = []

    def make(function, module="my_graders", seconds=30.0):  # so that a busy machine changes no verdict
        made.append(
            MathProblems(
                train=["a.json"],
                evaluation=["b.json"],
                n_validation=2,
                grading_seconds=seconds,
                grader=f"{module}:{function}",
            )
        )
        return made[-1]

    yield make
    for task in made:
        task.own_grader.close()


def test_the_function_decides(make_task):
    task = make_task("grade")
    assert len(task.problems()) == 10
    assert task.grade(PROBLEM, " Fish\n") is Grade.CORRECT
    assert task.grade(PROBLEM, "fowl") is Grade.WRONG
    assert task.grade(PROBLEM, "\\boxed{fish}") is Grade.WRONG  # it gets the text as it was written


@pytest.mark.parametrize(("function", "answer"), [("shows", "fish"), ("raw", "  It is\n\\boxed{ fish } \U0001f41f ")])
def test_it_sees_the_problem_and_the_raw_text(make_task, function, answer):
    assert make_task(function).grade(PROBLEM, answer) is Grade.CORRECT


@pytest.mark.parametrize(
    ("function", "reason"),
    [
        ("raises", "KeyError: 'fish'"),
        ("exits", "SystemExit"),
        ("dies", "without a verdict"),
        ("aborts", "without a verdict"),
        ("string", "returned str"),
        ("one", "returned int"),
        ("nothing", "returned NoneType"),
        ("memory", "MemoryError"),
    ],
)
def test_what_is_no_verdict_is_a_failure_and_not_a_reward(make_task, caplog, function, reason):
    task = make_task(function)
    with caplog.at_level(logging.WARNING):
        assert task.grade(PROBLEM, "fish") is task.grade(PROBLEM, "fowl") is Grade.FAILED
    assert Grade.FAILED.reward == 0
    (warning,) = caplog.messages  # the first one only
    assert f"task.grader=my_graders:{function}" in warning and reason in warning


def test_a_function_that_hangs_is_killed_at_the_deadline(make_task):
    task = make_task("hangs", seconds=0.5)
    task.problems()
    started = time.monotonic()
    assert task.grade(PROBLEM, "fish") is Grade.FAILED
    assert 0.5 <= time.monotonic() - started < 5
    assert task.grade(PROBLEM, "fish") is Grade.FAILED  # remembered


def test_after_a_failure_the_next_answer_is_graded(make_task):
    task = make_task("moody", seconds=2.0)
    assert [task.grade(PROBLEM, answer) for answer in ("fish", "hang", "fish ", "fowl")] == [
        Grade.CORRECT,
        Grade.FAILED,
        Grade.WRONG,
        Grade.WRONG,
    ]
    os.kill(task.own_grader.children[0].process.pid, 9)
    assert task.grade(PROBLEM, "a fish") is Grade.FAILED
    assert task.grade(PROBLEM, "two fish") is Grade.WRONG


def test_many_answers_have_the_grades_of_each(make_task, caplog):
    answers = ["fish", "fowl", " Fish\n", "", "\\boxed{fish}", "fish"]
    problems = [PROBLEM] * len(answers)
    one_by_one = [make_task("grade").grade(PROBLEM, answer) for answer in answers]
    assert make_task("grade").grade_all(problems, answers) == one_by_one
    assert one_by_one == [Grade[name] for name in ("CORRECT", "WRONG", "CORRECT", "UNPARSED", "WRONG", "CORRECT")]
    assert make_task("raises").grade_all([PROBLEM] * 3, ["a", "b", "c"]) == [Grade.FAILED] * 3
    (warning,) = caplog.messages
    assert "KeyError: 'a'" in warning  # of the first answer, whichever failed first


def test_nothing_is_carried_from_one_answer_to_the_next(make_task):
    assert make_task("remembers").grade_all([PROBLEM] * 5, ["a", "b", "c", "d", "e"]) == [Grade.CORRECT] * 5


def test_what_the_function_starts_is_killed_with_it(make_task, folder):
    assert make_task("starts_another", seconds=3.0).grade(PROBLEM, "fish") is Grade.FAILED
    process = Path("/proc") / (folder / "pid").read_text()
    for _ in range(100):
        if not process.exists() or process.joinpath("stat").read_text().split()[2] == "Z":
            return  # dead, if perhaps not yet collected
        time.sleep(0.05)
    raise AssertionError("it still runs")


def test_the_function_cannot_read_the_requests(make_task):
    task = make_task("reads")
    assert task.grade(PROBLEM, "fish") is task.grade(PROBLEM, "fowl") is Grade.CORRECT


def test_each_answer_to_a_problem_is_asked_about_once(make_task, folder):
    task = make_task("counts")
    other = Problem("a-2", "a", "train", "Say it.", ("fish",))
    for problem, answer in ((PROBLEM, "a"), (PROBLEM, "a"), (PROBLEM, "b"), (other, "a"), (other, "a")):
        assert task.grade(problem, answer) is Grade.CORRECT
    assert (folder / "calls").read_text() == "xxx"


def test_what_is_empty_or_too_long_is_no_answer(make_task, folder):
    task = make_task("counts")
    assert {task.grade(PROBLEM, text) for text in ("", " \n", "a" * (MAX_OWN_CHARS + 1))} == {Grade.UNPARSED}
    assert not (folder / "calls").exists()
    assert task.grade(PROBLEM, "\udc80" * MAX_OWN_CHARS) is Grade.CORRECT  # the longest, and not even valid text


@pytest.mark.parametrize(
    ("module", "function", "named"),
    [
        (
            "no_such_module",
            "grade",
            ["importing 'no_such_module' fails", "No module named 'no_such_module'", "{folder}"],
        ),
        ("no_such.module", "grade", ["No module named 'no_such'"]),
        ("needs", "grade", ["importing 'needs' fails", "No module named 'no_such_package'"]),
        ("broken", "grade", ["importing 'broken' fails", "SyntaxError"]),
        ("leaves", "grade", ["importing 'leaves' fails", "SystemExit"]),
        ("crashes", "grade", ["importing its module ended the process"]),
        ("my_graders", "no_such_function", ["{folder}/my_graders.py has no function 'no_such_function'"]),
        ("my_graders", "number", ["no function 'number'"]),
        ("my_graders", "one_argument", ["'one_argument' does not take (answer, problem)"]),
    ],
)
def test_a_grader_that_cannot_be_used_is_refused_before_work_starts(make_task, folder, module, function, named):
    for name, text in {
        "needs": "import no_such_package",
        "broken": "def grade(:",
        "leaves": "raise SystemExit",
        "crashes": "import os; os.abort()",
    }.items():
        (folder / f"{name}.py").write_text(text)
    with pytest.raises(InputError) as error:
        make_task(function, module=module).problems()
    message = str(error.value)
    for part in (f"task.grader={module}:{function}", "grade(answer, problem) -> bool", *named):
        assert part.format(folder=folder) in message
    assert module not in sys.modules  # it is imported in the child process only


def test_a_module_that_never_ends_its_import_is_refused(make_task, folder, monkeypatch):
    monkeypatch.setattr("mrt_pipeline.tasks.math_grader._START_DEADLINE", 1.0)
    (folder / "sleeps.py").write_text("import time; time.sleep(600)")
    with pytest.raises(InputError, match=r"task\.grader=sleeps:grade.*more than 1 s"):
        make_task("grade", module="sleeps").problems()


@pytest.mark.parametrize(
    "grader", ["my_graders", "my_graders:", ":grade", "my_graders.py:grade()", "../x:grade", "a b:c"]
)
def test_what_names_no_function_is_refused(grader):
    with pytest.raises(ValueError, match=r"task\.grader=my_module:grade"):
        MathProblems(train=["a.json"], evaluation=["b.json"], grader=grader)


def test_the_working_directory_is_searched_in_pythons_safe_path_mode_too(make_task, monkeypatch):
    monkeypatch.setenv("PYTHONSAFEPATH", "1")
    monkeypatch.setenv("PYTHONPATH", str(Path(mrt_pipeline.__file__).parents[1]))
    assert make_task("grade").grade(PROBLEM, "fish") is Grade.CORRECT


def test_votes_count_the_answer_that_is_found_or_else_the_text(make_task):
    task = make_task("grade")
    assert task.read("So the answer is \\dfrac{1}{2}.") == "\\frac{1}{2}"
    text = "Silver it swims,\nthe river its home"
    assert task.read(f" {text}\n") == text
    plain = MathProblems(train=["a.json"], evaluation=["b.json"])
    assert plain.read(text) == "" and plain.own_grader is None


def test_a_copy_of_a_task_in_use_has_a_child_of_its_own(make_task):
    task = make_task("grade")
    task.problems()
    other = copy.deepcopy(task)
    assert other == task
    assert other.grade(PROBLEM, "fish") is task.grade(PROBLEM, "fish") is Grade.CORRECT
    assert other.own_grader.children[0].process.pid != task.own_grader.children[0].process.pid
    other.own_grader.close()


def test_the_worker_ends_with_its_input(folder):
    command = [sys.executable, "-m", "mrt_pipeline.tasks.math_worker", "my_graders:grade"]
    request = json.dumps([30.0, {"question": "?", "answers": ["fish"], "metadata": {}}, "fish"])
    done = subprocess.run(command, input=f"{request}\n{request}\n", capture_output=True, text=True, timeout=60)
    assert done.stdout.splitlines() == ['"ready"', "true", "true"]
