import json

import numpy as np
import pandas as pd
import pytest

from mrt_pipeline.errors import InputError
from mrt_pipeline.tasks.trace_file import GivenTraces

ROWS = [
    {"question": "What is 2 + 3?", "thought": "2 and 3 are 5.\n", "answer": "\\boxed{5}", "source": "a"},
    {"question": "What is 2 + 3?", "thought": "Wait, 3 + 2 = 5.\n", "answer": "\\boxed{5}", "source": "b"},
    {"question": "What is 1 + 1?", "thought": "2\n", "answer": "\\boxed{2}", "source": "a"},
    {"question": "What is 4 + 4?", "thought": None, "answer": "\\boxed{8}", "source": "a"},
]


def write(folder, kind):
    path = folder / f"traces{kind}"
    if kind == ".jsonl":
        path.write_text("\n".join(map(json.dumps, ROWS)))
    elif kind == ".json":
        path.write_text(json.dumps(ROWS))
    elif kind == ".csv":
        pd.DataFrame(ROWS).to_csv(path, index=False)
    else:
        pd.DataFrame(ROWS).to_parquet(path)
    return str(path)


@pytest.mark.parametrize("kind", [".jsonl", ".json", ".csv", ".parquet"])
def test_traces_are_drawn_by_question_and_rows_without_a_thought_left_out(tmp_path, kind):
    given = GivenTraces(write(tmp_path, kind))
    assert [problem.question for problem in given.problems] == ["What is 2 + 3?", "What is 1 + 1?"]
    rng = np.random.default_rng(0)
    drawn = {given.search_trace(given.problems[0], rng).thought for _ in range(50)}
    assert drawn == {"2 and 3 are 5.\n", "Wait, 3 + 2 = 5.\n"}
    trace = given.search_trace(given.problems[1], rng)
    assert (trace.thought, trace.answer, trace.cut) == ("2\n", "\\boxed{2}", False)


@pytest.mark.parametrize(
    ("name", "content", "said"),
    [
        ("a.jsonl", '{"question": "q", "answer": "1"}', "has no column 'thought'; it has question, answer"),
        ("a.jsonl", '{"question": "q", "thought": null, "answer": "1"}', "no trace with a question and a thought"),
        ("a.jsonl", "{", "cannot read"),
        ("a.txt", "", "is none of .json, .jsonl, .parquet, .csv: correct policy.warm_start.traces"),
    ],
)
def test_a_file_that_will_not_do_is_refused_in_words(tmp_path, name, content, said):
    (tmp_path / name).write_text(content)
    with pytest.raises(InputError, match=said):
        GivenTraces(str(tmp_path / name))


def test_a_file_that_is_not_there_is_refused_in_words(tmp_path):
    with pytest.raises(InputError, match=r"there is no file .*: correct policy\.warm_start\.traces"):
        GivenTraces(str(tmp_path / "a.jsonl"))
