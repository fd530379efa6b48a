import json

import pandas as pd
import pytest

from mrt_pipeline.auditing.readers import FORMATS, read_traces
from mrt_pipeline.auditing.readers.values import as_golds
from mrt_pipeline.auditing.trace import MAX_CHARS, Trace, split_thinking
from mrt_pipeline.errors import InputError

TEXT = "<think>\n2 and 3\n\nare 5.\n</think>\n\nThe answer is \\boxed{5}."
THOUGHT, ANSWER = "2 and 3\n\nare 5.\n", "\n\nThe answer is \\boxed{5}."
FIVE = Trace("What is 2 + 3?", ("5",), THOUGHT, ANSWER, True)
ASKED = [{"role": "system", "content": "Think."}, {"role": "user", "content": "What is 2 + 3?"}]
RECORDS = {
    "records": [
        {"question": "What is 2 + 3?", "gold": 5, "thought": THOUGHT, "answer": ANSWER},
        {"problem": "What is 2 + 3?", "ground_truth": "5", "response": TEXT},
        {"prompt": "What is 2 + 3?", "target": ["5"], "reasoning": THOUGHT, "output": ANSWER, "finish_reason": "stop"},
    ],
    "responses": [
        {
            "messages": ASKED,
            "choices": [
                {"message": {"content": ANSWER, "reasoning_content": THOUGHT}, "finish_reason": "stop"},
                {"message": {"content": TEXT}, "finish_reason": "stop"},
            ],
            "gold": "5",
        },
        {
            "request": {"body": {"messages": ASKED}},
            "response": {"body": {"choices": [{"message": {"content": ANSWER, "reasoning": THOUGHT}}]}},
            "answer": "5",
        },
    ],
    "lm_eval": [
        {"doc": {"question": "What is 2 + 3?"}, "target": "2 + 3 = 5\n#### 5", "resps": [[TEXT, TEXT]]},
        {
            "doc": {"id": 7},
            "target": "5",
            "arguments": {"gen_args_0": {"arg_0": "What is 2 + 3?"}},
            "resps": [[TEXT]],
        },
    ],
    "trl": [
        {
            "step": 1,
            "prompt": ASKED,
            "completion": [{"role": "assistant", "content": TEXT}],
            "answer": 5.0,
            "reward": 1,
        },
        {"step": 1, "prompt": "What is 2 + 3?", "completion": TEXT, "solution": "\\boxed{5}", "advantage": 0.5},
    ],
}


def write(path, records):
    path.write_text("\n".join(map(json.dumps, records)))
    return str(path)


@pytest.mark.parametrize("form", FORMATS)
def test_every_spelling_of_a_format_gives_the_same_trace(tmp_path, form):
    path = write(tmp_path / "traces.jsonl", RECORDS[form])
    found = read_traces(path)
    assert {*found.traces} == {FIVE} and not found.refused
    assert len(found.traces) == (2 if form == "trl" else 3)
    assert read_traces(path, form).traces == found.traces


@pytest.mark.parametrize("ending", [".json", ".parquet", ".csv"])
def test_other_files_hold_the_same(tmp_path, ending):
    path, rows = tmp_path / f"traces{ending}", RECORDS["records"][:1] * 2
    if ending == ".json":
        path.write_text(json.dumps(rows))
    elif ending == ".parquet":
        pd.DataFrame(rows).to_parquet(path)
    else:
        pd.DataFrame(rows).to_csv(path, index=False)
    assert read_traces(str(path)).traces == [FIVE] * 2


def test_the_tables_of_a_trainer_are_read_from_their_folder(tmp_path):
    for step in (1, 2):
        row = {"step": step, "prompt": "What is 2 + 3?", "completion": TEXT, "reward": 1.0, "answer": "5"}
        pd.DataFrame([row]).to_parquet(tmp_path / f"completions_{step:05}.parquet")
    assert read_traces(str(tmp_path)).traces == [FIVE] * 2


def test_columns_of_other_names_are_named(tmp_path):
    path = write(tmp_path / "t.jsonl", [{"frage": "What is 2 + 3?", "soll": "5", "gedacht": THOUGHT, "answer": ANSWER}])
    columns = {"question": "frage", "gold": "soll", "thought": "gedacht"}
    assert read_traces(path, "records", columns).traces == [FIVE]
    with pytest.raises(InputError, match="there is no column 'nein' for the gold"):
        read_traces(path, "records", columns | {"gold": "nein"})
    with pytest.raises(InputError, match=r"audit.columns names 'golds'; it can name question, gold"):
        read_traces(path, "records", {"golds": "soll"})


def test_thoughts_that_were_cut_are_told_from_those_that_end(tmp_path):
    asked = {"question": "q"}
    rows = [
        {**asked, "response": "<think>\na</think>b"},
        {**asked, "response": "<think>\nnever ends"},
        {**asked, "thought": "a", "answer": ""},
        {**asked, "thought": "a", "answer": "b", "finish_reason": "length"},
    ]
    assert [t.finished for t in read_traces(write(tmp_path / "a.jsonl", rows)).traces] == [True, False, False, False]
    choices = [{"message": {"content": text}, "finish_reason": "length"} for text in ("a</think>b", "still thinking")]
    rows = [{"question": "q", "choices": choices}]
    assert [t.finished for t in read_traces(write(tmp_path / "b.jsonl", rows)).traces] == [True, False]


def test_without_markers_anywhere_all_thoughts_end(tmp_path):
    rows = [{"doc": {"question": "q"}, "target": "1", "resps": [["one", "two"]]}]
    assert [t.finished for t in read_traces(write(tmp_path / "a.jsonl", rows)).traces] == [True, True]
    rows += [{"doc": {"question": "q"}, "target": "1", "resps": [["one</think> 1"]]}]
    assert [t.finished for t in read_traces(write(tmp_path / "a.jsonl", rows)).traces] == [False, False, True]


def test_a_bad_record_costs_a_line_and_the_rest_goes_on(tmp_path):
    good = RECORDS["records"][0]
    lines = [json.dumps(good), "{", "[1, 2]", '"text"', json.dumps({"question": "q", "answer": "no thought"})]
    lines += [json.dumps({"question": " ", "thought": "a", "answer": "b"}), "[" * 100_000, json.dumps(good)]
    lines += [json.dumps({"question": "q", "thought": "", "answer": ""}), json.dumps({**good, "thought": None})]
    lines += [json.dumps({**good, "thought": "x" * (MAX_CHARS + 1)}), json.dumps({"choices": [{"message": 1}]})]
    (tmp_path / "t.jsonl").write_text("\n".join(lines))
    found = read_traces(str(tmp_path / "t.jsonl"))
    assert len(found.traces) == 3  # the last one has an answer, though its thought is empty
    said = {line.split(": ")[0].removeprefix("t.jsonl, line "): line.split(": ", 1)[1] for line in found.refused}
    assert said.keys() == {"2", "3", "4", "5", "6", "7", "9", "11", "12"}
    assert said["2"].startswith("no JSON") and said["7"].startswith("no JSON")
    assert said["5"] == "there is no thought, and the answer has no think tags"
    assert said["6"] == "the question is empty" and said["9"] == "neither a thought nor an answer"
    assert said["11"].startswith("a text of more than") and said["12"].startswith("there is no question")


def test_a_long_thought_is_read(tmp_path):
    long = "word " * 200_000
    found = read_traces(write(tmp_path / "t.jsonl", [{"question": "q", "thought": long, "answer": "1"}]))
    assert len(found.traces[0].thought) == 1_000_000


@pytest.mark.parametrize(
    ("name", "content", "said"),
    [
        ("t.jsonl", "", "there are no traces in .*: it is empty"),
        ("t.jsonl", '{"a": 1}', "no format has these columns: a.*audit.columns"),
        ("t.json", "{", "cannot read"),
        ("t.parquet", "x", "cannot read"),
    ],
)
def test_what_holds_no_traces_is_refused_in_words(tmp_path, name, content, said):
    (tmp_path / name).write_text(content)
    with pytest.raises(InputError, match=said):
        read_traces(str(tmp_path / name))


def test_what_is_not_there_is_refused_in_words(tmp_path, monkeypatch):
    with pytest.raises(InputError, match=r"there is no file .*audit\.traces"):
        read_traces(str(tmp_path / "t.jsonl"))
    (tmp_path / "empty").mkdir()
    with pytest.raises(InputError, match="has no file that ends in"):
        read_traces(str(tmp_path / "empty"))
    with pytest.raises(InputError, match="unknown format 'x'; known are auto, responses"):
        read_traces("t.jsonl", "x")
    monkeypatch.setattr("datasets.load_dataset", lambda *args, **kwargs: 1 / 0)
    with pytest.raises(InputError, match=r"'some/dataset' is not a file .* on the hub it cannot be loaded: division"):
        read_traces("some/dataset")


def test_a_dataset_on_the_hub_is_read(monkeypatch):
    monkeypatch.setattr("datasets.load_dataset", lambda name, split: RECORDS["records"])
    assert {*read_traces("some/dataset").traces} == {FIVE}


@pytest.mark.parametrize(
    ("cell", "golds"),
    [
        (7, ("7",)),
        (27.0, ("27",)),
        (" x ", ("x",)),
        (None, ()),
        (float("nan"), ()),
        ("so \\boxed{3}", ("3",)),
        (["1", 2], ("1", "2")),
        ("", ()),
        ("work\n#### 12", ("12",)),
    ],
)
def test_gold_answers_in_cells(cell, golds):
    assert as_golds(cell) == golds


@pytest.mark.parametrize(
    ("text", "parts"),
    [
        ("<think>\na\n</think>\n\nb", ("a\n", "\n\nb", True)),
        ("a</think>b", ("a", "b", True)),
        (" <think>a", ("a", "", False)),
        ("a", ("a", "", None)),
        ("</think>b", ("", "b", True)),
        ("<think>a</think>b</think>c", ("a", "b</think>c", True)),
    ],
)
def test_splitting_at_the_end_of_the_thought(text, parts):
    assert split_thinking(text) == parts
