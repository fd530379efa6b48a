"""A real `mlflow server` that is down, stops answering and comes back, and `kedro run` as a user runs it."""

import os
import signal
import subprocess
import sys
import time
from http.server import BaseHTTPRequestHandler, HTTPServer
from threading import Thread

import mlflow
import pandas as pd
import pytest
from every_kind import every_kind, held_by

from mrt_pipeline.tracking.journal import Journal, send_waiting
from mrt_pipeline.tracking.records import new_address


def run(project, server, *command):
    environment = {**os.environ, "MLFLOW_TRACKING_URI": server if isinstance(server, str) else server.uri}
    done = subprocess.run(
        [sys.executable, "-m", *command], cwd=project, env=environment, capture_output=True, text=True, timeout=900
    )
    assert "Traceback" not in done.stdout + done.stderr
    return done


@pytest.fixture(scope="module")
def project(copy_project):
    return copy_project()


def test_a_run_goes_on_without_a_server_and_arrives_there_later(project, server, tracking_at):
    ingest = ("kedro", "run", "--pipelines=ingest", "--params", "preset=smoke,task.n_train=64")
    without = run(project, server, *ingest)
    assert without.returncode == 0, without.stdout + without.stderr
    assert without.stdout.count("Connection refused") == 1 and "mrt_pipeline.tracking.resend" in without.stdout
    table = pd.read_parquet(project / "data/01_raw/problems.parquet")
    (waiting,) = (project / "data/outbox").iterdir()
    (project / "data/01_raw/problems.parquet").write_bytes(b"a later run's")
    server.start()
    sent = run(project, server, "mrt_pipeline.tracking.resend")
    assert sent.returncode == 0 and "Nothing waits" in sent.stdout, sent.stdout + sent.stderr
    assert not waiting.exists()
    tracking_at(server.uri)
    (found,) = mlflow.search_runs(experiment_names=["mrt-pipeline"], output_format="list")
    assert found.info.status == "FINISHED" and found.data.tags["outbox"] == waiting.name
    assert found.data.params["task.n_train"] == "64" and found.data.tags["pipeline"] == "ingest"
    path = mlflow.MlflowClient().download_artifacts(found.info.run_id, "tables/problems.parquet", str(project / "data"))
    pd.testing.assert_frame_equal(pd.read_parquet(path), table)
    assert found.inputs.dataset_inputs[0].dataset.name == "countdown"


@pytest.mark.slow
def test_a_server_that_stops_answering_costs_nothing_and_gets_everything_later(server, tracking_at, tmp_path):
    server.start()
    tracking_at(server.uri, timeout=1)
    n_weights = 15_000_000  # more than the network's buffers take
    undisturbed, disturbed = (Journal(tmp_path / "outbox", new_address("server")) for _ in range(2))
    undisturbed.start()
    for record, files in every_kind(tmp_path, n_weights):
        undisturbed.send(record, files)
    undisturbed.close()
    assert not undisturbed.n_waiting
    disturbed.start()
    records = every_kind(tmp_path, n_weights)
    for n, (record, files) in enumerate(records):
        if n == 2:
            server.signal(signal.SIGSTOP)
        started = time.monotonic()
        disturbed.send(record, files)
        assert time.monotonic() - started < 1
    started = time.monotonic()
    disturbed.close()
    assert time.monotonic() - started < 20 and disturbed.n_waiting >= len(records) - 2
    server.signal(signal.SIGCONT)
    assert send_waiting(tmp_path / "outbox") == 0
    expected, found = held_by(undisturbed.run_id), held_by(disturbed.run_id)
    assert found.pop("times")[1] == expected.pop("times")[1] == 3000
    assert expected.pop("versions") == 2 and found.pop("versions") == 2
    assert found == expected and not list((tmp_path / "outbox").glob("*"))


def test_comparing_is_refused_in_words_without_a_server(project):
    refused = run(project, "http://127.0.0.1:9", "kedro", "run", "--pipeline=compare", "--params", "runs=somewhere")
    assert refused.returncode == 1
    assert "cannot be read from MLflow at http://127.0.0.1:9 (Connection refused)" in refused.stderr


def test_a_wrong_address_is_refused_in_words_before_anything_runs(project):
    class NotMlflow(BaseHTTPRequestHandler):
        def do_GET(self):
            self.send_error(404)

        def log_message(self, *given):
            pass

    other = HTTPServer(("127.0.0.1", 0), NotMlflow)
    Thread(target=other.serve_forever, daemon=True).start()
    refused = run(project, f"http://127.0.0.1:{other.server_port}", "kedro", "run", "--pipelines=ingest")
    other.shutdown()
    assert refused.returncode == 1 and "look at tracking_uri" in refused.stderr
    assert "make_problems" not in refused.stdout
    assert not (project / "mlruns").exists()
