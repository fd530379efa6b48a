"""Delivering, to a real SQLite store: twice is as good as once, for every kind of record."""

import json

import mlflow
import pandas as pd
import pytest
from every_kind import every_kind, held_by

from mrt_pipeline.errors import InputError
from mrt_pipeline.tracking.outbox import Outbox, use
from mrt_pipeline.tracking.read_runs import find_runs
from mrt_pipeline.tracking.records import _DELIVER, WAITED_AS, deliver, new_address
from mrt_pipeline.tracking.resend import send_waiting
from mrt_pipeline.tracking.runs import log_problems


def test_delivering_twice_is_as_good_as_once(store, tmp_path):
    records = every_kind(tmp_path)
    assert {record["kind"] for record, _ in records} == set(_DELIVER)
    address = new_address("test")
    for record, files in records:
        deliver(address, json.loads(json.dumps(record)), files)
    once = held_by(address.run_id)
    assert once["status"] == "FINISHED" and once["metrics"] == {"regret": [(1, 0.5), (2, 0.25)]}
    assert once["versions"] == 1 and list(once["models"]) == ["step_2"] and len(once["spans"]) == 4
    address.run_id = None  # the answer to the beginning was lost, too
    for record, files in records:
        deliver(address, record, files)
    assert held_by(address.run_id) == once


def test_a_run_that_waited_is_found_by_its_parent_and_by_the_id_it_had(store, tmp_path):
    def down(*given):
        raise OSError("down")

    root = tmp_path / "outbox"
    parent = Outbox(root, new_address("test"), post=down)
    parent.send({"kind": "tags", "values": {"pipeline": "sweep"}})
    child = Outbox(root, new_address("test"), post=down)
    child.address.start_time += 1
    child.send({"kind": "tags", "values": {"pipeline": "mrt_rl", "mlflow.parentRunId": parent.run_id}})
    child.close()
    assert send_waiting(root) == 1  # the parent is still in hand, so its child must wait for it
    parent.close()
    assert send_waiting(root) == 0 and not list(root.iterdir())
    runs = mlflow.search_runs(search_all_experiments=True, output_format="list")
    by_name = {run.data.tags[WAITED_AS]: run for run in runs}
    assert by_name[child.address.name].data.tags["mlflow.parentRunId"] == by_name[parent.address.name].info.run_id
    with pytest.raises(InputError, match="mrt_rl, running"):
        find_runs([child.address.name])


def test_records_of_a_run_on_another_server_are_left(store, tmp_path, caplog):
    root = tmp_path / "outbox"

    def down(*given):
        raise OSError("down")

    outbox = Outbox(root, new_address("test", run_id="0" * 32), post=down)
    outbox.send({"kind": "tags", "values": {"a": "b"}})
    outbox.close()
    assert send_waiting(root) == 1 and len(list(root.glob("*/*.json"))) == 2
    assert "has no run 0000" in caplog.text


def test_problems_are_a_dataset_input_with_the_digest_that_mlflow_gives(store, tmp_path):
    outbox = Outbox(tmp_path / "outbox", new_address("test"))
    use(outbox)
    problems = pd.DataFrame({"problem_id": ["a"], "split": ["train"], "question": ["1 2 make 3"], "more": [1]})
    log_problems(problems, "countdown")
    (found,) = mlflow.get_run(outbox.run_id).inputs.dataset_inputs
    described = mlflow.data.from_pandas(problems[["problem_id", "split", "question"]])
    assert (found.dataset.name, found.dataset.digest) == ("countdown", described.digest)
    assert {tag.key: tag.value for tag in found.tags}["mlflow.data.context"] == "problems"
