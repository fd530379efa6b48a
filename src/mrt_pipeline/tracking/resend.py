"""Sending what earlier runs could not: `python -m mrt_pipeline.tracking.resend`; `kedro run` does it when it starts."""

import json
import logging
import os
import sys
from pathlib import Path

import mlflow
from kedro.framework.session import KedroSession
from kedro.framework.startup import bootstrap_project
from kedro.utils import find_kedro_project
from mlflow.exceptions import MlflowException

from mrt_pipeline.errors import InputError
from mrt_pipeline.tracking.failures import is_refusal, reason
from mrt_pipeline.tracking.outbox import OUTBOX, Outbox
from mrt_pipeline.tracking.records import RunAddress

logger = logging.getLogger(__name__)


def send_waiting(root: Path) -> int:
    """Send what waits in the outboxes below `root`, oldest run first. Returns how many records still do.

    Outboxes of runs that go on are left to them. A run that had begun on another server than the current one is left.
    """
    addresses = [RunAddress(**json.loads(path.read_text())) for path in root.glob("*/run.json")]
    still = 0
    for address in sorted(addresses, key=lambda address: address.start_time):
        outbox = Outbox(root, address, quiet=True)
        if not outbox.load():
            continue
        n, left, problem = outbox.n_waiting, outbox.n_waiting, _not_here(address)
        if not problem:
            left = outbox.flush()
            problem = outbox.problem
        outbox.close()
        if n > left:
            logger.info("Sent to MLflow: %d records that had waited, of run %s", n - left, outbox.run_id)
        if left:
            logger.warning("%d records still wait in %s: %s", left, outbox.folder, problem)
        still += left
    return still


def _not_here(address: RunAddress) -> str:
    """Why the run's records cannot be sent to the current server; empty if they can."""
    try:
        if address.run_id:
            mlflow.MlflowClient().get_run(address.run_id)
    except (MlflowException, OSError) as error:
        if is_refusal(error):
            return (
                f"MLflow at {mlflow.get_tracking_uri()} has no run {address.run_id}. Delete the folder to give them up"
            )
        return reason(error)
    return ""


def main() -> int:
    """Send all that waits to the server of mlflow.yml; the exit code is 1 if something still waits."""
    project = find_kedro_project(Path.cwd())
    if project is None:
        print("Error: run this inside the project's folder (the one with pyproject.toml)", file=sys.stderr)
        return 1
    os.chdir(project)
    bootstrap_project(project)
    try:
        with KedroSession.create(project) as session:
            session.load_context()  # sets address and credentials of the server
    except InputError as error:
        print(f"Error: {error}", file=sys.stderr)
        return 1
    still = send_waiting(OUTBOX)
    print(f"{still} records still wait" if still else "Nothing waits for MLflow")
    return int(still > 0)


if __name__ == "__main__":
    from mrt_pipeline.tracking.resend import main as resend  # under its own name, which logging knows

    sys.exit(resend())
