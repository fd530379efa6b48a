"""Many runs by one command: `python -m mrt_pipeline.sweep --multirun algorithm=grpo,mrt_online seed=1,2,3`.

Hydra expands the overrides and launches the jobs; each is a Kedro session and an MLflow run, all under one parent run.
Likelihood algorithms run the pipeline `mrt_star`, the others `mrt_rl`. A job whose configuration has a finished run
already is not repeated; one that fails does not stop the others and is listed with the command that runs it alone. Jobs
share the base policy and what was measured of it; each has a data folder of its own, which goes when the job is done.
"""

import contextlib
import json
import logging
import os
import shutil
import sys
import time
import traceback
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import hydra
from hydra._internal.core_plugins.basic_sweeper import BasicSweeper
from hydra.core.hydra_config import HydraConfig
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.errors import HydraException
from kedro.framework.session import KedroSession
from kedro.framework.startup import bootstrap_project
from omegaconf import DictConfig

from mrt_pipeline.algorithms.base import Algorithm
from mrt_pipeline.cli import PIPELINE_DEFAULTS, enter_project
from mrt_pipeline.config import Parameters
from mrt_pipeline.config_loader import import_given_plugins
from mrt_pipeline.errors import InputError
from mrt_pipeline.paths import DATA_VARIABLE
from mrt_pipeline.tracking.journal import RESEND, Journal, send_waiting
from mrt_pipeline.tracking.runs import OUTBOX, PARENT_VARIABLE, begin, find_finished_run, git_state, run_id

_OUTCOME = "outcome.json"


def main() -> int:
    """Run the sweep of the command line; the exit code is 1 if a job failed or the request was refused."""
    overrides = [argument for argument in sys.argv[1:] if not argument.startswith(("-", "hydra"))]
    try:
        project = enter_project(__doc__)
        if project is None:
            return 0
        folder = Path("data/sweep") / time.strftime("%Y-%m-%d_%H-%M-%S")
        folder.mkdir(parents=True, exist_ok=True)
        with _printing_to(folder / "sweep.log"):
            bootstrap_project(project)
            parent, n_jobs = start_parent(overrides)
    except (InputError, HydraException) as error:
        print(f"Error: {error}", file=sys.stderr)
        return 1
    print(f"{n_jobs} jobs, parent run {parent.run_id}", flush=True)
    if not parent.address.run_id:
        print(f"MLflow takes no records: those of the jobs wait in {OUTBOX} until it does", flush=True)
    os.environ[PARENT_VARIABLE] = parent.run_id
    sys.argv += ["--multirun"] if not {"--multirun", "-m"} & set(sys.argv) else []
    sys.argv.append(f"hydra.sweep.dir={folder}")
    own = project / "conf" / "local" / "parameters"
    if own.is_dir():
        sys.argv.append(f"hydra.searchpath=['file://{own}']")
    hydra.main(version_base="1.3", config_path=str(project / "conf/base/parameters"), config_name="sweep")(run_job)()
    return int(report(parent, folder) > 0)


def start_parent(overrides: list[str]) -> tuple[Journal, int]:
    """Compose every job, so that a bad one is refused before the first starts; open the parent run.

    Opening it also creates MLflow's database, which jobs side by side must not do. Returns its journal and the number
    of jobs.
    """
    batches = BasicSweeper.split_arguments(OverridesParser.create().parse_overrides(overrides), None)
    jobs = [list(job) for batch in batches for job in batch]
    for job in jobs:
        with KedroSession.create(Path.cwd(), runtime_params=job_request(job)[1]) as session:
            session.load_context()
    said = " ".join(overrides)
    tags = {"pipeline": "sweep", "overrides": said, **git_state(Path.cwd()), "mlflow.runName": f"sweep {said}"}
    return begin(OUTBOX, {}, tags), len(jobs)


def report(parent: Journal, folder: Path) -> int:
    """Write `sweep.json`, one entry a job, to the parent run; print what failed and how to run it alone.

    Returns how many failed.
    """
    paths = sorted(folder.glob(f"*/{_OUTCOME}"), key=lambda path: int(path.parent.name))
    outcomes = [json.loads(path.read_text()) for path in paths]
    parent.send({"kind": "text", "text": json.dumps(outcomes), "path": "sweep.json"})
    parent.end("FINISHED")
    by_status = {status: [o for o in outcomes if o["status"] == status] for status in ("finished", "reused", "failed")}
    print(", ".join(f"{status}: {len(some)}" for status, some in by_status.items()))
    for outcome in by_status["failed"]:
        print(f"  {outcome['message']}\n    alone: {command(outcome['overrides'])}")
    if still := send_waiting(OUTBOX):
        print(f"MLflow lacks {still} records, which wait in {OUTBOX}: `{RESEND}` sends them")
    print(f"Look next: kedro run --pipeline=compare --params runs={parent.run_id}")
    return len(by_status["failed"])


def run_job(config: DictConfig) -> None:
    """One job, as Hydra calls it: its overrides are in Hydra's own configuration, its outcome goes into its folder."""
    job = HydraConfig.get()
    overrides, folder = list(job.overrides.task), Path(job.runtime.output_dir)
    name = " ".join(overrides) or "the defaults"
    print(f"{name}: started", flush=True)
    started = time.monotonic()
    outcome = {"overrides": overrides, **_run(overrides, folder)}
    outcome["seconds"] = round(time.monotonic() - started)
    (folder / _OUTCOME).write_text(json.dumps(outcome))
    said = {"finished": f"finished in {outcome['seconds']} s", "reused": "has a finished run already"}
    print(f"{name}: {said.get(outcome['status']) or outcome['message']}", flush=True)


def _run(overrides: list[str], folder: Path) -> dict[str, Any]:
    pipeline, params = job_request(overrides)
    os.environ[DATA_VARIABLE] = str(folder / "data")
    log = folder / "job.log"
    try:
        with _printing_to(log):
            bootstrap_project(Path.cwd())  # this may be a worker process
            with KedroSession.create(Path.cwd(), runtime_params=params) as session:
                context = session.load_context()
                parameters = Parameters.model_validate(context.config_loader["parameters"])
                run = find_finished_run(pipeline, parameters)
                if run:
                    return {"status": "reused", "run_id": run}
                session.run(pipeline_names=[pipeline])
            shutil.rmtree(folder / "data", ignore_errors=True)  # the tables are artifacts of the MLflow run
            return {"status": "finished", "run_id": run_id()}
    except Exception as error:  # a failed job must not take the others with it
        with log.open("a") as file:
            traceback.print_exception(error, file=file)
        return {"status": "failed", "message": f"failed: {error} (see {log})", "run_id": None}
    finally:
        os.environ.pop(DATA_VARIABLE)


@contextlib.contextmanager
def _printing_to(path: Path) -> Iterator[None]:
    """What is printed and logged goes into a file."""
    handlers = [handler for handler in logging.root.handlers if isinstance(handler, logging.StreamHandler)]
    with path.open("w", buffering=1) as file, contextlib.redirect_stdout(file), contextlib.redirect_stderr(file):
        before = [handler.setStream(file) for handler in handlers]
        try:
            yield
        finally:
            for handler, stream in zip(handlers, before, strict=True):
                handler.setStream(stream or sys.stdout)


def job_request(overrides: list[str]) -> tuple[str, dict[str, str]]:
    """The pipeline that a job runs and its `--params`: ["algorithm=star"] gives mrt_star and its defaults."""
    params = dict(override.split("=", 1) for override in overrides)
    import_given_plugins(params)
    name = params.get("algorithm")
    imitates = name in Algorithm.names() and Algorithm.member(name).likelihood
    pipeline = "mrt_star" if imitates else "mrt_rl"
    return pipeline, {**PIPELINE_DEFAULTS.get(pipeline, {}), **params}


def command(overrides: list[str]) -> str:
    """What to type to run a job alone."""
    pipeline, _ = job_request(overrides)
    return f'kedro run --pipeline={pipeline} --params "{",".join(overrides)}"'


if __name__ == "__main__":
    from mrt_pipeline.sweep import main as start_sweep  # under its own name, so that worker processes can import it

    sys.exit(start_sweep())
