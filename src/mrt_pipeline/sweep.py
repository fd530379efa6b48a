"""Many runs by one command: `python -m mrt_pipeline.sweep algorithm=grpo,mrt_online seed=1,2,3`.

Hydra expands the overrides and launches the jobs; each is a `kedro run` and an MLflow run, all under one parent run.
Likelihood algorithms run the pipeline `mrt_star`, the others `mrt_rl`. A job whose configuration has a finished run
already is not repeated; one that fails does not stop the others and is listed with the command that runs it alone. Jobs
share the base policy and what was measured of it; each has a data folder of its own, which goes when the job is done.

Hydra's own flags (--cfg job, --info, --help, -sc install=bash) are answered before Kedro and MLflow are imported.
"""

import contextlib
import itertools
import json
import os
import shlex
import shutil
import subprocess
import sys
import time
import traceback
from collections.abc import Iterator
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any

import hydra
from hydra.core.hydra_config import HydraConfig
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.errors import HydraException
from hydra.experimental.callback import Callback
from omegaconf import DictConfig
from omegaconf.errors import OmegaConfBaseException

from mrt_pipeline.algorithms.base import Algorithm
from mrt_pipeline.config_loader import (
    PIPELINE_DEFAULTS,
    explain_composition,
    import_given_plugins,
    prepare_hydra,
    project_parameters,
)
from mrt_pipeline.errors import InputError
from mrt_pipeline.paths import DATA_VARIABLE, enter_project

if TYPE_CHECKING:
    from mrt_pipeline.tracking.journal import Journal

_OUTCOME = "outcome.json"


def main() -> int:
    """Run the sweep of the command line, or what else Hydra's flags ask for; 1 if that is refused or a job fails."""
    os.environ.setdefault("HYDRA_FULL_ERROR", "1")  # errors come to us, not to the screen
    try:
        folder = enter_project() / "conf/base/parameters"
        prepare_hydra(folder, folder.parents[1] / "local/parameters")
        hydra.main(version_base="1.3", config_path=str(folder), config_name="sweep")(run_job)()
    except (InputError, HydraException, OmegaConfBaseException) as error:
        return _refuse(error)
    return 0


def _refuse(error: Exception) -> int:
    print(f"Error: {error if isinstance(error, InputError) else explain_composition(error)}", file=sys.stderr)
    return 1


class ParentRun(Callback):
    """What Hydra calls before the first job and after the last. It ends the process itself: Hydra lets no error out."""

    def __getstate__(self) -> dict[str, Any]:
        """Workers get copies of what Hydra calls; the parent run stays here."""
        return {}

    def on_multirun_start(self, config: DictConfig, **kwargs: Any) -> None:
        """Compose every job, so that a bad one is refused before anything is left behind; open the parent run."""
        overrides, folder = list(config.hydra.overrides.task), Path(config.hydra.sweep.dir)
        try:
            jobs = expand(overrides)
            for job in jobs:
                project_parameters(Path.cwd(), job_request(job)[1])
            folder.mkdir(parents=True, exist_ok=True)
            with _printing_to(folder / "sweep.log"):
                self.parent = open_parent(" ".join(overrides))
        except (InputError, HydraException) as error:
            sys.exit(_refuse(error))
        except Exception:
            sys.exit(traceback.format_exc())
        print(f"{len(jobs)} jobs, parent run {self.parent.run_id}", flush=True)
        if not self.parent.address.run_id:
            print(f"MLflow takes no records: those of the jobs wait in {self.parent.folder} until it does", flush=True)

    def on_multirun_end(self, config: DictConfig, **kwargs: Any) -> None:
        """Report; the exit code is 1 if a job failed."""
        if report(self.parent, Path(config.hydra.sweep.dir)):
            sys.exit(1)


def expand(overrides: list[str]) -> list[list[str]]:
    """The overrides of each job: `algorithm=grpo,mrt seed=1,2` are four."""
    choices = [
        [f"{override.get_key_element()}={value}" for value in override.sweep_string_iterator()]
        if override.is_sweep_override()
        else [f"{override.get_key_element()}={override.get_value_element_as_str()}"]
        for override in OverridesParser.create().parse_overrides(overrides)
    ]
    return [list(job) for job in itertools.product(*choices)]


def open_parent(overrides: str) -> "Journal":
    """The journal of the parent run. Opening it creates MLflow's database, which jobs side by side must not do."""
    from mrt_pipeline.tracking.runs import OUTBOX, PARENT_VARIABLE, begin, git_state

    _find_mlflow()
    tags = {"pipeline": "sweep", "overrides": overrides, **git_state(Path.cwd())}
    parent = begin(OUTBOX, {}, {**tags, "mlflow.runName": f"sweep {overrides}"})
    os.environ[PARENT_VARIABLE] = parent.run_id
    return parent


def _find_mlflow() -> None:
    from mrt_pipeline.settings import CONFIG_LOADER_ARGS, CONFIG_LOADER_CLASS
    from mrt_pipeline.tracking.runs import configure

    configure(CONFIG_LOADER_CLASS("conf", **CONFIG_LOADER_ARGS)["mlflow"])


def report(parent: "Journal", folder: Path) -> int:
    """Write `sweep.json`, one entry a job, to the parent run; print what failed and how to run it alone.

    Returns how many failed.
    """
    from mrt_pipeline.tracking.journal import RESEND, send_waiting
    from mrt_pipeline.tracking.runs import OUTBOX

    paths = sorted(folder.glob(f"*/{_OUTCOME}"), key=lambda path: int(path.parent.name))
    outcomes = [json.loads(path.read_text()) for path in paths]
    parent.send({"kind": "text", "text": json.dumps(outcomes), "path": "sweep.json"})
    parent.end("FINISHED")
    by_status = {status: [o for o in outcomes if o["status"] == status] for status in ("finished", "reused", "failed")}
    print(", ".join(f"{status}: {len(some)}" for status, some in by_status.items()))
    for outcome in by_status["failed"]:
        print(f"  {outcome['message']}\n    alone: {shlex.join(command(outcome['overrides']))}")
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
    with _printing_to(folder / "job.log") as log:
        outcome = {"overrides": overrides, **_run(overrides, folder, log)}
    outcome["seconds"] = round(time.monotonic() - started)
    (folder / _OUTCOME).write_text(json.dumps(outcome))
    said = {"finished": f"finished in {outcome['seconds']} s", "reused": "has a finished run already"}
    print(f"{name}: {said.get(outcome['status']) or outcome['message']}", flush=True)


def _run(overrides: list[str], folder: Path, log: IO[str]) -> dict[str, Any]:
    from mrt_pipeline.tracking.runs import find_finished_run

    pipeline, params = job_request(overrides)
    parameters = project_parameters(Path.cwd(), params)
    _find_mlflow()  # this may be a worker process
    if run := find_finished_run(pipeline, parameters):
        return {"status": "reused", "run_id": run}
    environment = {**os.environ, DATA_VARIABLE: str(folder / "data")}
    python = [sys.executable, "-m", *command(overrides)]
    if subprocess.run(python, env=environment, stdout=log, stderr=log).returncode:
        said = Path(log.name).read_text().strip()
        why = said.rpartition("\nError: ")[2] if "\nError: " in said else said.splitlines()[-1]
        return {"status": "failed", "message": f"failed: {why} (see {log.name})", "run_id": None}
    shutil.rmtree(folder / "data", ignore_errors=True)  # the tables are artifacts of the MLflow run
    return {"status": "finished", "run_id": find_finished_run(pipeline, parameters)}


@contextlib.contextmanager
def _printing_to(path: Path) -> Iterator[IO[str]]:
    """What is printed goes into a file."""
    with path.open("w", buffering=1) as file, contextlib.redirect_stdout(file), contextlib.redirect_stderr(file):
        yield file


def job_request(overrides: list[str]) -> tuple[str, dict[str, str]]:
    """The pipeline that a job runs and its `--params`: ["algorithm=star"] gives mrt_star and its defaults."""
    params = dict(override.split("=", 1) for override in overrides)
    import_given_plugins(params)
    name = params.get("algorithm")
    imitates = name in Algorithm.names() and Algorithm.member(name).likelihood
    pipeline = "mrt_star" if imitates else "mrt_rl"
    return pipeline, {**PIPELINE_DEFAULTS.get(pipeline, {}), **params}


def command(overrides: list[str]) -> list[str]:
    """What runs a job alone."""
    return ["kedro", "run", f"--pipeline={job_request(overrides)[0]}", "--params", ",".join(overrides)]


if __name__ == "__main__":
    from mrt_pipeline.sweep import main as start_sweep  # under its own name, so that worker processes can import it

    sys.exit(start_sweep())
