import os
import shutil
import signal
import subprocess
import sys
import time
from urllib.request import urlopen

import mlflow
import pytest

from mrt_pipeline.tracking.runs import use


class MlflowServer:
    """`mlflow server` with a port, a database and an artifact folder of its own, in a process that can be hurt."""

    def __init__(self, folder, port):
        self._folder, self._process, self.port = folder, None, port
        self.uri = f"http://127.0.0.1:{self.port}"

    def start(self):
        """Start it, unless it runs."""
        if self._process:
            return
        command = [sys.executable, "-m", "mlflow", "server", "--host", "127.0.0.1", "--port", str(self.port)]
        command += ["--workers", "1", "--backend-store-uri", f"sqlite:///{self._folder}/mlflow.db", "--serve-artifacts"]
        command += ["--artifacts-destination", str(self._folder / "artifacts")]
        with (self._folder / "server.log").open("a") as log:
            self._process = subprocess.Popen(command, cwd=self._folder, stdout=log, stderr=log, start_new_session=True)
        for _ in range(600):
            try:
                return urlopen(f"{self.uri}/health", timeout=5).close()
            except OSError:
                assert self._process.poll() is None, (self._folder / "server.log").read_text()
                time.sleep(0.2)
        raise AssertionError("the server did not start")

    def signal(self, what):
        """SIGSTOP makes a server that accepts connections and never answers."""
        if self._process:
            os.killpg(self._process.pid, what)

    def stop(self):
        self.signal(signal.SIGKILL)
        if self._process:
            self._process.wait()
        self._process = None


@pytest.fixture(scope="module")
def server(tmp_path_factory, free_port):
    """Not started yet."""
    server = MlflowServer(tmp_path_factory.mktemp("server"), free_port())
    yield server
    server.stop()


@pytest.fixture(scope="session")
def empty_database(tmp_path_factory):
    """Making one takes MLflow more than a second."""
    path = tmp_path_factory.mktemp("store") / "mlflow.db"
    mlflow.MlflowClient(f"sqlite:///{path}").search_experiments()
    return path


@pytest.fixture
def store(empty_database, tracking_at, tmp_path):
    """A SQLite store with the experiment `test`, whose id this is."""
    shutil.copy(empty_database, tmp_path / "mlflow.db")
    tracking_at(f"sqlite:///{tmp_path}/mlflow.db")
    yield mlflow.create_experiment("test", artifact_location=str(tmp_path / "artifacts"))
    use(None)


@pytest.fixture
def tracking_at(monkeypatch):
    """Sets MLflow's address and its patience for this process."""
    before = mlflow.get_tracking_uri()

    def at(uri, timeout=10):
        monkeypatch.setenv("MLFLOW_HTTP_REQUEST_TIMEOUT", str(timeout))
        monkeypatch.setenv("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "1")
        mlflow.set_tracking_uri(uri)

    yield at
    mlflow.set_tracking_uri(before)
