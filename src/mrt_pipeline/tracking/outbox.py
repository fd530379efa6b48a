"""Records on their way to the tracking server: a server that is down or slow must not stop a training.

What cannot be sent is kept in a folder of the run, a JSON file a record with the files that belong to it, and tried
again: with later records once a while has passed, at the end of the run, before the next run starts, and by
`python -m mrt_pipeline.tracking.resend`.
"""

import json
import logging
import shutil
import threading
import time
from collections import deque
from collections.abc import Callable
from dataclasses import asdict, dataclass, field
from itertools import islice
from pathlib import Path

import mlflow
from filelock import FileLock, Timeout

from mrt_pipeline.tracking.failures import is_refusal, reason
from mrt_pipeline.tracking.records import STORED_AS_FILES, Record, RunAddress, deliver, size

logger = logging.getLogger(__name__)
OUTBOX = Path("data/outbox")
RESEND = "python -m mrt_pipeline.tracking.resend"
_SHARE = 10  # a failing server is left alone for so many times what it cost, so it costs a tenth of a run at most
_CATCH_UP = 5.0  # seconds that sending what waits may hold up a record
_SLOW = 5.0  # seconds; a failure that took longer is not followed by another attempt at once
_METRICS_AT_ONCE = 200  # records of metrics that are sent as one
_ROOM = 10  # files are kept if so many times their size is free, since a full disk would stop the training


@dataclass
class _Lane:
    """Records that fail together: those in the server's database, and those in its artifact store."""

    waiting: deque[Path] = field(default_factory=deque)
    not_before: float = float("-inf")


class Outbox:
    """The records of one run.

    root: folder of outboxes; the run's own is made in it when something must wait. retry_after: least seconds to leave
    a server alone that has failed. clock: seconds that only grow. post: delivers (address, record, files). quiet: leave
    it to the caller to say what goes wrong; refusals and losses are logged all the same.
    """

    def __init__(
        self,
        root: Path,
        address: RunAddress,
        retry_after: float = 60.0,
        clock: Callable[[], float] = time.monotonic,
        post: Callable[[RunAddress, Record, Path | None], None] = deliver,
        quiet: bool = False,
    ):
        self.address, self.folder = address, root / address.name
        self._retry_after, self._clock, self._post = retry_after, clock, post
        self.problem = ""  # why MLflow did not take the last record that it did not take
        self._database, self._artifacts = _Lane(), _Lane()
        self._lock = threading.RLock()  # system metrics come from a thread
        self._held = FileLock(
            self.folder / "lock", thread_local=False
        )  # by the process whose run it is, or that sends it
        self._kept = 0
        self._refused = self._away = False
        self._quiet, self._told = quiet, False

    @property
    def n_waiting(self) -> int:
        """Records that MLflow lacks."""
        return len(self._database.waiting) + len(self._artifacts.waiting)

    @property
    def run_id(self) -> str:
        """The run's id on the server or, until it is there, the one it waits under."""
        return self.address.run_id or self.address.name

    def send(self, record: Record, files: Path | None = None) -> None:
        """Send a record, after those of its lane that wait. What cannot be sent is kept, the files copied."""
        with self._lock:
            lane = self._artifacts if record["kind"] in STORED_AS_FILES else self._database
            if self._clock() >= lane.not_before:
                self._send_waiting(lane, failures=1, seconds=_CATCH_UP)
            resting = self._clock() < lane.not_before
            if lane.waiting or resting or not self._try(lane, record, files):
                self._keep(lane, record, files)

    def flush(self, failures: int = 3) -> int:
        """Try to send what waits; give up after so many failures in a row. Returns how many records still wait."""
        with self._lock:
            self._send_waiting(self._database, failures)
            if not self._database.waiting:
                self._send_waiting(self._artifacts, failures)
            return self.n_waiting

    def rest(self, error: Exception, lost: float = 0.0) -> None:
        """Leave the server alone for a while, since it has failed."""
        self._rest(self._database, error, lost)

    def close(self) -> None:
        """Let others send what still waits; an empty folder goes."""
        with self._lock:
            if self._held.is_locked and not self.n_waiting:
                shutil.rmtree(self.folder, ignore_errors=True)
            self._held.release()

    def load(self) -> bool:
        """Take in hand what waits in the folder. Returns False if another process has it in hand."""
        try:
            self._held.acquire(timeout=0)
        except Timeout:
            return False
        self._database, self._artifacts = _Lane(), _Lane()
        for path in sorted(self.folder.glob("[0-9]*.json")):
            kind = json.loads(path.read_text())["kind"]
            (self._artifacts if kind in STORED_AS_FILES else self._database).waiting.append(path)
            self._kept = int(path.stem) + 1
        return True

    def _send_waiting(self, lane: _Lane, failures: int, seconds: float = float("inf")) -> None:
        """One round: a record that fails goes to the back, so that it does not hold up the others for good."""
        until, left, failed = self._clock() + seconds, len(lane.waiting), 0
        while left > 0 and failed < failures and self._clock() <= until:
            paths, record = _next(lane.waiting)
            folder, started = paths[0].with_suffix(""), self._clock()
            if self._try(lane, record, next(folder.iterdir()) if folder.exists() else None):
                failed = 0
                for path in paths:
                    lane.waiting.popleft()
                    shutil.rmtree(path.with_suffix(""), ignore_errors=True)
                    path.unlink()
            else:
                failed += 1 if self._clock() - started < _SLOW else failures
                lane.waiting.rotate(-len(paths))
            left -= len(paths)
        if self._away and not self.n_waiting:
            self._away = False
            self._quiet or logger.info("MLflow answers again and has all records of this run")

    def _try(self, lane: _Lane, record: Record, files: Path | None) -> bool:
        """Returns whether the record needs no further attempt."""
        started, begun = self._clock(), self.address.run_id
        try:
            self._post(self.address, record, files)
        except Exception as error:  # whatever goes wrong between here and there, the training goes on
            if not is_refusal(error):
                self._rest(lane, error, self._clock() - started)
                return False
            if not self._refused:
                logger.error("MLflow refuses a record (%s), which is left out: %s", record["kind"], reason(error))
            self._refused = True
        finally:
            if begun != self.address.run_id and self._held.is_locked:
                self._write_address()
        lane.not_before = float("-inf")
        return True

    def _rest(self, lane: _Lane, error: Exception, lost: float) -> None:
        resting = self._clock() + max(self._retry_after, _SHARE * lost)
        for other in (lane, self._artifacts):  # without its database, an artifact store cannot be asked
            other.not_before = max(other.not_before, resting)
        self.problem = reason(error)
        if not self._away and not self._quiet:
            how = (
                f" in {self.folder} and are sent when it does: later in this run, before the next one, or by `{RESEND}`"
            )
            logger.warning(
                "MLflow at %s takes no records (%s). The run goes on; its records wait%s",
                mlflow.get_tracking_uri(),
                self.problem,
                "" if self._told else how,
            )
        self._away = self._told = True

    def _keep(self, lane: _Lane, record: Record, files: Path | None) -> None:
        try:
            if not self._held.is_locked:
                self.folder.mkdir(parents=True, exist_ok=True)
                self._held.acquire(timeout=0)
                self._write_address()
            if files is not None and _ROOM * size(files) > shutil.disk_usage(self.folder).free:
                raise OSError(f"{files.name} has {size(files) / 1e6:.0f} MB and the disk has little left")
            path = self.folder / f"{self._kept:08d}.json"
            self._kept += 1
            if files is not None:
                kept = path.with_suffix("") / files.name
                kept.parent.mkdir()
                (shutil.copytree if files.is_dir() else shutil.copy)(files, kept)
            _write(path, record)
            lane.waiting.append(path)
        except (OSError, Timeout) as error:
            logger.error("A record (%s) that MLflow did not take cannot be kept and is lost: %s", record["kind"], error)

    def _write_address(self) -> None:
        _write(self.folder / "run.json", asdict(self.address))


def _next(waiting: deque[Path]) -> tuple[list[Path], Record]:
    """The record to send next, with the files it stands in: metrics in a row are sent as one."""
    record = json.loads(waiting[0].read_text())
    paths = [waiting[0]]
    for path in islice(waiting, 1, _METRICS_AT_ONCE if record["kind"] == "metrics" else 1):
        more = json.loads(path.read_text())
        if more["kind"] != "metrics":
            break
        record["points"] += more["points"]
        paths.append(path)
    return paths, record


def _write(path: Path, content: dict) -> None:
    """So that a process killed meanwhile leaves no half of it."""
    unfinished = path.with_suffix(".new")
    unfinished.write_text(json.dumps(content))
    unfinished.rename(path)


_current: Outbox | None = None


def current() -> Outbox | None:
    """That of the current `kedro run`, or of the last one that has ended; None where nothing is tracked."""
    return _current


def use(outbox: Outbox | None) -> None:
    """Make it that of the current run."""
    global _current
    _current = outbox
