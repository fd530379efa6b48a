"""Journals and a server that is made up."""

import shutil
import subprocess
import sys
import threading
import time
from collections import namedtuple

import pytest
from filelock import Timeout
from mlflow.exceptions import MlflowException
from mlflow.protos.databricks_pb2 import RESOURCE_DOES_NOT_EXIST

from mrt_pipeline.tracking import journal as module
from mrt_pipeline.tracking.journal import Journal, send_waiting
from mrt_pipeline.tracking.records import RunAddress, new_address


class Server:
    """Takes records, or raises; notes what it has received, files by what stands in them."""

    def __init__(self):
        self.up, self.received, self.tries, self.error = True, [], 0, MlflowException("no route")
        self.fails = lambda record: False
        self.answers = threading.Event()  # else it hangs
        self.answers.set()

    def begin(self, address):
        self.answers.wait()
        if not self.up:
            self.tries += 1
            raise self.error
        address.run_id, address.experiment_id = address.run_id or f"begun-{address.name}", "1"

    def deliver(self, address, record, files):
        self.tries += 1
        self.answers.wait()
        if not self.up or self.fails(record):
            raise self.error
        self.received.append(record if files is None else {**record, "files": _content(files)})

    @property
    def points(self):
        return [value for record in self.received if record["kind"] == "metrics" for value in record["points"]]


def _content(files):
    if files.is_file():
        return files.read_text()
    return {path.name: path.read_text() for path in files.iterdir()}


@pytest.fixture
def server(monkeypatch, tracking_at):
    server = Server()
    tracking_at("http://127.0.0.1:9")
    monkeypatch.setattr(module, "begin", server.begin)
    monkeypatch.setattr(module, "deliver", server.deliver)
    monkeypatch.setattr(module, "_LONGEST_PAUSE", 0.05)
    yield server
    server.answers.set()


@pytest.fixture
def make(tmp_path, server):
    def made(name="run", **options):
        return Journal(tmp_path, RunAddress(name, "experiment", 0, {}), **options)

    return made


def metric(value):
    return {"kind": "metrics", "points": [value]}


def text(value):
    return {"kind": "text", "text": value, "path": "t"}


def until(condition):
    for _ in range(500):
        if condition():
            return True
        time.sleep(0.01)
    return False


@pytest.mark.parametrize(
    "error", [MlflowException("500"), ConnectionError("refused"), TimeoutError(), KeyError("boto")]
)
def test_what_could_not_be_sent_is_sent_later_in_order(make, server, error):
    journal = make()
    journal.start()
    journal.send(text(1))
    assert until(lambda: server.received == [text(1)])
    server.up, server.error = False, error
    journal.send(text(2))
    journal.send(text(3))
    assert until(lambda: server.tries > 3) and journal.n_waiting == 2
    server.up = True
    assert until(lambda: server.received == [text(value) for value in (1, 2, 3)])
    journal.close()
    assert not journal.n_waiting and not journal.folder.exists()


def test_a_server_that_hangs_holds_up_no_record(make, server):
    journal = make()
    journal.start()
    server.answers.clear()
    started = time.monotonic()
    for value in range(50):
        journal.send(metric(value))
    assert time.monotonic() - started < 2 and journal.n_waiting == 50 and server.tries <= 1
    server.answers.set()
    journal.close()
    assert server.points == list(range(50))


def test_a_failing_server_is_left_alone_for_longer_and_longer(make, server, monkeypatch):
    monkeypatch.setattr(module, "_LONGEST_PAUSE", 60)
    journal, server.up = make(), False
    journal.start()
    for value in range(30):
        journal.send(metric(value))
        time.sleep(0.05)
    assert server.tries <= 3 and journal.n_waiting == 30
    journal.close()
    assert server.tries <= 5 and journal.n_waiting == 30


def test_metrics_that_wait_are_sent_together(make, server):
    journal = make()
    for value in range(150):
        journal.send(metric(value))
    journal.send({"kind": "end"})
    journal.send(metric(150))
    journal.close()
    assert server.points == list(range(151)) and server.tries == 3


def test_a_record_that_is_refused_is_left_out(make, server, caplog):
    journal, server.fails = make(), lambda record: record["kind"] == "metrics" and 1 in record["points"]
    server.error = MlflowException("no such run", error_code=RESOURCE_DOES_NOT_EXIST)
    for value in range(3):  # goes together
        journal.send(metric(value))
    journal.close()
    assert server.points == [0, 2] and not journal.n_waiting and "refuses a record (metrics)" in caplog.text


def test_a_record_that_fails_for_good_does_not_hold_up_the_others(make, server):
    journal, server.fails = make(), lambda record: record == text(1)
    for value in range(5):
        journal.send(text(value))
    journal.close()
    assert journal.n_waiting == 1
    assert server.received == [text(value) for value in (0, 2, 3, 4)]


def test_an_artifact_store_that_is_down_does_not_hold_up_metrics(make, server, tmp_path):
    journal, server.fails = make(), lambda record: record["kind"] == "artifact"
    table = tmp_path / "table"
    table.write_text("1")
    for _ in range(5):
        journal.send({"kind": "artifact", "path": None}, table)
    journal.send(metric(1))
    journal.close()
    assert server.points == [1] and journal.n_waiting == 5


def test_files_are_kept_as_they_were(make, server, tmp_path):
    journal = make()
    table, policy = tmp_path / "table.parquet", tmp_path / "policy"
    for content in ("first", "second"):
        policy.mkdir()
        table.write_text(content)
        (policy / "weights").write_text(content)
        journal.send({"kind": "artifact", "path": "tables"}, table)
        journal.send({"kind": "artifact", "path": "policy"}, policy)
        shutil.rmtree(policy)
    table.unlink()
    journal.close()
    assert [record["files"] for record in server.received] == [
        "first",
        {"weights": "first"},
        "second",
        {"weights": "second"},
    ]


def test_what_a_process_leaves_is_sent_by_another_and_its_folder_goes(make, server, tmp_path):
    journal, server.up = make(), False
    (tmp_path / "table").write_text("content")
    journal.send(metric(1))
    journal.send({"kind": "artifact", "path": None}, tmp_path / "table")
    with pytest.raises(Timeout):  # the process lives
        make(timeout=0)
    assert send_waiting(tmp_path) == 0 and not server.tries
    journal.close()
    assert send_waiting(tmp_path) == 2
    server.up = True
    assert send_waiting(tmp_path) == 0
    assert server.points == [1] and server.received[-1]["files"] == "content"
    assert not (tmp_path / "run").exists()


def test_a_run_that_begins_late_is_remembered(make, server):
    """Its id on the server must not be lost if the process is killed while some of its records still wait."""
    journal, server.up = make(), False
    journal.start()
    journal.send(text(1))
    assert journal.run_id == "run"
    server.up, server.fails = True, lambda record: True
    assert until(lambda: journal.run_id == "begun-run")
    journal.close()
    assert make().run_id == "begun-run"


def test_what_earlier_runs_left_is_sent_first(make, server):
    earlier, server.up = make("earlier"), False
    earlier.send(metric(1))
    earlier.close()
    server.up = True
    journal = make("later")
    journal.send(metric(2))
    journal.start()
    journal.close()
    assert server.points == [1, 2] and not earlier.folder.exists()


def test_a_killed_process_leaves_what_waits(server, tmp_path):
    script = (
        "import os, sys\n"
        "from pathlib import Path\n"
        "from mrt_pipeline.tracking.journal import Journal\n"
        "from mrt_pipeline.tracking.records import RunAddress\n"
        "journal = Journal(Path(sys.argv[1]), RunAddress('run', 'e', 0, {}))\n"
        "for value in range(3): journal.send({'kind': 'text', 'text': value, 'path': 't'})\n"
        "os._exit(9)\n"
    )
    assert subprocess.run([sys.executable, "-c", script, str(tmp_path)]).returncode == 9
    assert send_waiting(tmp_path) == 0
    assert server.received == [text(value) for value in range(3)]


def test_a_full_disk_does_not_stop_the_run(make, server, tmp_path, monkeypatch, caplog):
    journal = make()
    usage = namedtuple("usage", "total used free")
    monkeypatch.setattr(shutil, "disk_usage", lambda path: usage(100, 95, 5))
    (tmp_path / "table").write_text("content")
    journal.send({"kind": "artifact", "path": None}, tmp_path / "table")
    journal.send(metric(1))  # costs next to nothing
    assert journal.n_waiting == 1 and "the disk has little left" in caplog.text


def test_the_user_is_told_once_where_records_wait_and_how_they_are_sent(make, server, caplog):
    journal, server.up = make(), False
    journal.start()
    for _ in range(20):
        journal.send(metric(1))
    assert until(lambda: server.tries > 3)
    assert len(caplog.records) == 1
    for word in ("no route", str(journal.folder), "later in the run", "mrt_pipeline.tracking.resend"):
        assert word in caplog.text
    journal.close()
    assert "20 records" in journal.waiting() and "mrt_pipeline.tracking.resend" in journal.waiting()


def test_runs_are_named_in_order_of_time():
    names = [new_address("e").name for _ in range(20)]
    assert names == sorted(names) and len({*names}) == 20
