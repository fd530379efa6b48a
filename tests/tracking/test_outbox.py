import json
import shutil
import subprocess
import sys
from collections import namedtuple

import pytest
from mlflow.exceptions import MlflowException
from mlflow.protos.databricks_pb2 import RESOURCE_DOES_NOT_EXIST

from mrt_pipeline.tracking.outbox import Outbox
from mrt_pipeline.tracking.records import RunAddress


class Server:
    """Takes records, or raises; notes what it has received, files by what stands in them."""

    def __init__(self, clock):
        self.up, self.received, self.tries, self.error, self.takes = True, [], 0, MlflowException("no route"), 0.0
        self.clock, self.refuses = clock, lambda record: False

    def post(self, address, record, files):
        self.tries += 1
        self.clock[0] += self.takes
        if not self.up or self.refuses(record):
            raise self.error
        address.run_id = address.run_id or "begun"
        self.received.append(record if files is None else {**record, "files": _content(files)})

    @property
    def points(self):
        return [value for record in self.received if record["kind"] == "metrics" for value in record["points"]]


def _content(files):
    if files.is_file():
        return files.read_text()
    return {path.name: path.read_text() for path in files.iterdir()}


@pytest.fixture
def clock():
    return [0.0]


@pytest.fixture
def server(clock):
    return Server(clock)


@pytest.fixture
def make(tmp_path, server, clock):
    def made(run_id="run", name=None, **options):
        address = RunAddress(name or run_id, run_id, "experiment", 0, {})
        return Outbox(tmp_path, address, retry_after=60, clock=lambda: clock[0], post=server.post, **options)

    return made


def metric(value):
    return {"kind": "metrics", "points": [value]}


def tag(value):
    return {"kind": "tags", "values": {"tag": value}}


@pytest.mark.parametrize(
    "error", [MlflowException("500"), ConnectionError("refused"), TimeoutError(), KeyError("boto")]
)
def test_what_could_not_be_sent_is_sent_later_in_order(make, server, clock, error):
    outbox, server.error = make(), error
    outbox.send(tag(1))
    server.up = False
    outbox.send(tag(2))
    outbox.send(tag(3))
    assert server.received == [tag(1)] and outbox.n_waiting == 2
    server.up, clock[0] = True, 61
    outbox.send(tag(4))
    assert server.received == [tag(value) for value in (1, 2, 3, 4)] and not outbox.n_waiting


def test_a_failing_server_is_left_alone_for_a_while(make, server, clock):
    outbox, server.up = make(), False
    for value in range(10):
        clock[0] += 1
        outbox.send(metric(value))
    assert server.tries == 1 and outbox.n_waiting == 10
    assert outbox.flush(failures=1) == 10 and server.tries == 2


def test_a_slow_failure_costs_a_tenth_of_the_time_at_most(make, server, clock):
    outbox, server.up, server.takes = make(), False, 20.0
    while clock[0] < 3_000:
        clock[0] += 1
        outbox.send(metric(0))
    assert 10 < server.tries <= 15 and server.tries * server.takes <= 0.1 * clock[0]


def test_catching_up_does_not_hold_up_a_record_for_long(make, server, clock):
    outbox, server.up = make(), False
    for value in range(100):
        outbox.send(tag(value))
    server.up, server.takes, clock[0] = True, 1.0, 100
    outbox.send(tag(100))
    assert clock[0] <= 107 and 90 < outbox.n_waiting < 100
    outbox.flush()
    assert [record["values"]["tag"] for record in server.received] == list(range(101))


def test_metrics_that_wait_are_sent_together(make, server):
    outbox, server.up = make(), False
    for value in range(150):
        outbox.send(metric(value))
    outbox.send(tag("x"))
    outbox.send(metric(150))
    server.up, server.tries = True, 0
    assert outbox.flush() == 0 and server.points == list(range(151)) and server.tries == 3


def test_a_record_that_is_refused_is_left_out(make, server):
    outbox = make()
    server.up, server.error = False, MlflowException("no such run", error_code=RESOURCE_DOES_NOT_EXIST)
    outbox.send(tag(1))
    assert not outbox.n_waiting
    server.up = True
    outbox.send(tag(2))
    assert server.received == [tag(2)]


def test_a_record_that_fails_for_good_does_not_hold_up_the_others(make, server):
    outbox, server.up = make(), False
    for value in range(5):
        outbox.send(tag(value))
    server.up, server.refuses = True, lambda record: record == tag(1)
    assert outbox.flush() == 1
    assert server.received == [tag(value) for value in (0, 2, 3, 4)]


def test_an_artifact_store_that_is_down_does_not_hold_up_metrics(make, server, tmp_path):
    outbox, server.refuses = make(), lambda record: record["kind"] == "artifact"
    table = tmp_path / "table"
    table.write_text("1")
    outbox.send({"kind": "artifact", "path": None}, table)
    outbox.send(metric(1))
    assert server.points == [1] and outbox.n_waiting == 1


def test_files_are_kept_as_they_were(make, server, tmp_path):
    outbox, server.up = make(), False
    table, policy = tmp_path / "table.parquet", tmp_path / "policy"
    policy.mkdir()
    for content in ("first", "second"):
        table.write_text(content)
        (policy / "weights").write_text(content)
        outbox.send({"kind": "artifact", "path": "tables"}, table)
        outbox.send({"kind": "artifact", "path": "policy"}, policy)
    table.unlink()
    shutil.rmtree(policy)
    server.up = True
    assert outbox.flush() == 0
    assert [record["files"] for record in server.received] == [
        "first",
        {"weights": "first"},
        "second",
        {"weights": "second"},
    ]


def test_what_a_process_leaves_is_sent_by_another_and_its_folder_goes(make, server, tmp_path):
    outbox, server.up = make(run_id=None, name="waiting-1"), False
    (tmp_path / "table").write_text("content")
    outbox.send(metric(1))
    outbox.send({"kind": "artifact", "path": None}, tmp_path / "table")
    assert not make(run_id=None, name="waiting-1").load()  # the process lives
    outbox.close()
    server.up = True
    later = make(**_address(tmp_path / "waiting-1"))
    assert later.load() and later.flush() == 0 and later.run_id == "begun"
    later.close()
    assert server.points == [1] and server.received[-1]["files"] == "content"
    assert not (tmp_path / "waiting-1").exists()


def _address(folder):
    address = json.loads((folder / "run.json").read_text())
    return {"run_id": address["run_id"], "name": address["name"]}


def test_a_run_that_begins_late_is_remembered(make, server, tmp_path):
    """Its id on the server must not be lost if the process is killed while some of its records still wait."""
    outbox, server.up = make(run_id=None, name="waiting-1"), False
    outbox.send(tag(1))
    outbox.send(tag(2))
    server.up, server.refuses = True, lambda record: record == tag(2)
    assert outbox.flush() == 1
    assert _address(tmp_path / "waiting-1")["run_id"] == "begun"


def test_a_killed_process_leaves_what_waits(tmp_path):
    script = (
        "import os, sys\n"
        "from pathlib import Path\n"
        "from mrt_pipeline.tracking.outbox import Outbox\n"
        "from mrt_pipeline.tracking.records import RunAddress\n"
        "def post(*given): raise OSError('down')\n"
        "outbox = Outbox(Path(sys.argv[1]), RunAddress('run', 'run', 'e', 0, {}), post=post)\n"
        "for value in range(3): outbox.send({'kind': 'tags', 'values': {'tag': value}})\n"
        "os._exit(9)\n"
    )
    assert subprocess.run([sys.executable, "-c", script, str(tmp_path)]).returncode == 9
    sent = []
    outbox = Outbox(
        tmp_path, RunAddress("run", "run", "e", 0, {}), post=lambda address, record, files: sent.append(record)
    )
    assert outbox.load() and outbox.flush() == 0
    assert sent == [tag(value) for value in range(3)]


def test_a_full_disk_does_not_stop_the_run(make, server, tmp_path, monkeypatch, caplog):
    outbox, server.up = make(), False
    usage = namedtuple("usage", "total used free")
    monkeypatch.setattr(shutil, "disk_usage", lambda path: usage(100, 95, 5))
    (tmp_path / "table").write_text("content")
    outbox.send({"kind": "artifact", "path": None}, tmp_path / "table")
    outbox.send(metric(1))  # costs next to nothing
    assert outbox.n_waiting == 1 and "the disk has little left" in caplog.text


def test_the_user_is_told_once_where_records_wait_and_how_they_are_sent(make, server, clock, caplog):
    outbox, server.up = make(), False
    for _ in range(100):
        clock[0] += 10
        outbox.send(metric(1))
    assert len(caplog.records) == 1
    for word in ("no route", str(outbox.folder), "later in this run", "mrt_pipeline.tracking.resend"):
        assert word in caplog.text
