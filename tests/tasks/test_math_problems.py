import json

import pandas as pd
import pytest

from mrt_pipeline.errors import InputError
from mrt_pipeline.tasks.base import Grade
from mrt_pipeline.tasks.math_problems import MathProblems, ProblemSource, gold_answer, normalize_question, read_source

RECORDS = [{"problem": f"What is {i} + {i}?", "answer": str(2 * i), "level": i} for i in range(10)]


def write(folder, name, records=RECORDS):
    path = folder / name
    table = pd.DataFrame(records)
    match path.suffix:
        case ".json":
            path.write_text(json.dumps(records))
        case ".jsonl":
            path.write_text("\n".join(map(json.dumps, records)))
        case ".csv":
            table.to_csv(path, index=False)
        case ".parquet":
            table.to_parquet(path)
    return str(path)


@pytest.mark.parametrize("name", ["a.json", "a.jsonl", "a.csv", "a.parquet"])
def test_every_format_gives_the_same_problems(tmp_path, name):
    problems = read_source(ProblemSource(path=write(tmp_path, name)), "test")
    assert [(p.question, p.answers, p.problem_id) for p in problems] == [
        (record["problem"], (record["answer"],), f"a-{i}") for i, record in enumerate(RECORDS)
    ]
    assert {(p.source, p.split) for p in problems} == {("a", "test")}
    assert int(problems[3].metadata["level"]) == 3


def test_columns_can_be_named(tmp_path):
    path = write(tmp_path, "a.json", [{"q": "1 + 1?", "gold": "2", "answer": "no"}])
    (problem,) = read_source(ProblemSource(path=path, question="q", answer="gold"), "train")
    assert (problem.question, problem.answers) == ("1 + 1?", ("2",))


@pytest.mark.parametrize(
    ("cell", "answer"),
    [
        (27.0, "27"),
        (2.5, "2.5"),
        (3, "3"),
        ("\\frac{1}{2}", "\\frac{1}{2}"),
        ("long reasoning\n#### 1,000", "1,000"),
        ("It is\n$\\boxed{x^2}$ indeed", "x^2"),
        ("", None),
        (None, None),
        (float("nan"), None),
        (True, None),
        ("two\nlines", None),
    ],
)
def test_what_a_cell_gives_as_its_answer(cell, answer):
    assert gold_answer(cell) == answer


@pytest.mark.parametrize(
    ("records", "source", "named"),
    [
        ([], {}, ["no problems"]),
        ([{"text": "1 + 1?", "answer": "2"}], {}, ["question", "problem", "text", "path:"]),
        ([{"problem": "1 + 1?", "gold": "2"}], {"answer": "key"}, ["'key'", "gold"]),
        ([{"problem": "1 + 1?", "answer": ""}, *RECORDS], {}, ["1 of 11", "rows 0", "task.max_unusable"]),
    ],
)
def test_a_source_that_cannot_be_used_is_refused_in_words(tmp_path, records, source, named):
    path = tmp_path / "a.json"
    path.write_text(json.dumps(records))
    with pytest.raises(InputError) as error:
        read_source(ProblemSource(path=str(path), **source), "train")
    for part in (str(path), *named):
        assert part in str(error.value)


def test_a_missing_and_a_broken_file_are_refused(tmp_path):
    with pytest.raises(InputError, match="no file"):
        read_source(ProblemSource(path=str(tmp_path / "none.json")), "train")
    (tmp_path / "broken.jsonl").write_text("{]")
    with pytest.raises(InputError, match=r"broken\.jsonl"):
        read_source(ProblemSource(path=str(tmp_path / "broken.jsonl")), "train")


def test_a_hub_that_cannot_be_reached_is_refused_in_words(monkeypatch):
    def unreachable(*args, **kwargs):
        raise ConnectionError("no route to host")

    monkeypatch.setattr("datasets.load_dataset", unreachable)
    with pytest.raises(InputError, match=r"some/dataset.*no route to host.*connection"):
        read_source(ProblemSource(path="some/dataset"), "train")


def test_some_rows_without_an_answer_are_left_out_and_counted(tmp_path, caplog):
    path = write(tmp_path, "a.json", [{"problem": "?", "answer": ""}, *RECORDS])
    problems = read_source(ProblemSource(path=path), "train", max_unusable=0.1)
    assert [problem.problem_id for problem in problems] == [f"a-{i}" for i in range(1, 11)]
    assert "1 rows without a question or an answer are left out" in caplog.text


def test_training_problems_that_stand_in_an_evaluation_source_are_dropped(tmp_path, caplog):
    held_out = [
        {"problem": "What is  $3 + 3$ ?", "answer": "6"},
        {"problem": "What is 100 + 1?", "answer": "101"},
    ]
    train = write(tmp_path, "train.json", [*RECORDS, RECORDS[0]])
    task = MathProblems(
        train=[ProblemSource(path=train)],
        evaluation=[ProblemSource(path=write(tmp_path, "test.csv", held_out))],
        n_validation=2,
    )
    problems = task.problems()
    assert [p.split for p in problems] == ["train"] * 7 + ["validation"] * 2 + ["test"] * 2
    texts = {
        split: {normalize_question(p.question) for p in problems if p.split == split}
        for split in ("train", "validation", "test")
    }
    assert not texts["train"] & texts["test"]
    assert not texts["validation"] & (texts["test"] | texts["train"])
    assert len({p.problem_id for p in problems}) == len(problems)
    assert "1 that stand in an evaluation source, 1 repeated" in caplog.text
    assert task.problems() == problems


def test_too_few_problems_are_refused_naming_the_number(tmp_path):
    a, b = (
        ProblemSource(path=write(tmp_path, "a.json")),
        ProblemSource(path=write(tmp_path, "b.json", [{"problem": "?", "answer": "1"}])),
    )
    with pytest.raises(InputError, match="n_validation"):
        MathProblems(train=[a], evaluation=[b], n_validation=11).problems()
    with pytest.raises(InputError, match="n_train"):
        MathProblems(train=[a], evaluation=[b], n_validation=10).problems()
    with pytest.raises(InputError, match="n_test"):
        MathProblems(train=[a], evaluation=[b], n_validation=1, n_test=2).problems()
    with pytest.raises(InputError, match="'a'"):
        MathProblems(train=[a], evaluation=[a], n_validation=1).problems()


def test_the_answer_is_found_in_the_text_and_compared(tmp_path):
    task = MathProblems(
        train=[ProblemSource(path=write(tmp_path, "a.json"))],
        evaluation=[ProblemSource(path=write(tmp_path, "b.json"))],
    )
    problem = task._read(task.train, "train")[3]
    assert task.grade(problem, "I think it is \\boxed{6}.") is Grade.CORRECT
    assert task.grade(problem, "6.0") is Grade.CORRECT
    assert task.grade(problem, "\\boxed{7}") is Grade.WRONG
    assert task.grade(problem, "") is Grade.UNPARSED
