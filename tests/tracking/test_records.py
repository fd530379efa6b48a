"""Delivering, to a real SQLite store: twice is as good as once, for every kind of record."""

import json

import mlflow
import pandas as pd
import pytest
from every_kind import every_kind, held_by

from mrt_pipeline.errors import InputError
from mrt_pipeline.tracking.journal import Journal, send_waiting
from mrt_pipeline.tracking.read_runs import find_runs
from mrt_pipeline.tracking.records import NAME_TAG, begin, deliver, new_address
from mrt_pipeline.tracking.runs import log_problems, use


def test_delivering_twice_is_as_good_as_once(store, tmp_path):
    records, address = every_kind(tmp_path), new_address("test")
    begin(address)
    for record, files in records:
        deliver(address, json.loads(json.dumps(record)), files)
    once = held_by(address.run_id)
    assert once["status"] == "FINISHED" and once["metrics"] == {"regret": [(1, 0.5), (2, 0.25)]}
    assert once["versions"] == 1 and list(once["models"]) == ["step_2"] and len(once["spans"]) == 4
    began, address.run_id = address.run_id, None  # the answer to the beginning was lost, too
    begin(address)
    for record, files in records:
        deliver(address, record, files)
    assert address.run_id == began and held_by(began) == once


def test_what_is_no_record_is_an_error(store):
    with pytest.raises(ValueError, match="no such record"):
        deliver(new_address("test"), {"kind": "else"}, None)


def test_a_run_that_waited_is_found_by_its_parent_and_by_the_name_it_had(store, tmp_path):
    root = tmp_path / "outbox"
    parent, child = Journal(root, new_address("test")), Journal(root, new_address("test"))
    tags = {"pipeline": "mrt_rl", "mlflow.parentRunId": parent.run_id}
    child.send({"kind": "describe", "params": {}, "tags": tags})
    child.close()
    assert send_waiting(root) == 1  # the parent is still in hand, so its child must wait for it
    parent.send({"kind": "describe", "params": {}, "tags": {"pipeline": "sweep"}})
    parent.close()
    assert send_waiting(root) == 0 and not list(root.iterdir())
    runs = mlflow.search_runs(search_all_experiments=True, output_format="list")
    by_name = {run.data.tags[NAME_TAG]: run for run in runs}
    assert by_name[child.address.name].data.tags["mlflow.parentRunId"] == by_name[parent.address.name].info.run_id
    with pytest.raises(InputError, match="mrt_rl, running"):
        find_runs([child.address.name])


def test_records_of_a_run_on_another_server_are_left(store, tmp_path, caplog):
    root, address = tmp_path / "outbox", new_address("test")
    address.run_id = "0" * 32
    journal = Journal(root, address)
    journal.send({"kind": "end", "status": "FINISHED", "time": 1})
    journal.close()
    assert send_waiting(root) == 1 and len(list(root.glob("*/*.json"))) == 2
    assert "0000 not found" in caplog.text


def test_problems_are_a_dataset_input_with_the_digest_that_mlflow_gives(store, tmp_path):
    journal = Journal(tmp_path / "outbox", new_address("test"))
    use(journal)
    problems = pd.DataFrame({"problem_id": ["a"], "split": ["train"], "question": ["1 2 make 3"], "more": [1]})
    log_problems(problems, "countdown")
    journal.close()
    (found,) = mlflow.get_run(journal.run_id).inputs.dataset_inputs
    described = mlflow.data.from_pandas(problems[["problem_id", "split", "question"]])
    assert (found.dataset.name, found.dataset.digest) == ("countdown", described.digest)
    assert {tag.key: tag.value for tag in found.tags}["mlflow.data.context"] == "problems"
