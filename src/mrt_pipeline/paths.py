"""Where the project is, and where a run keeps its tables."""

import os
import sys
from pathlib import Path

from kedro.utils import find_kedro_project

from mrt_pipeline.errors import InputError

DATA_VARIABLE = "MRT_PIPELINE_DATA"


def data_folder() -> Path:
    """`data`, or what the environment variable MRT_PIPELINE_DATA says, so that runs side by side do not collide.

    Policies and checkpoints are kept under keys of their configuration and stay in `data` for all.
    """
    return Path(os.environ.get(DATA_VARIABLE) or "data")


OUTSIDE = (
    "conf/ is looked for beside the pyproject.toml of this folder or of one above, and there is none: cd into your "
    "copy of mrt-pipeline, or get one with git clone"
)


def enter_project(usage: str | None = None) -> Path:
    """For commands run as modules: go to the project's folder and return it. Raises InputError outside of one.

    usage: printed for --help, instead of going anywhere.
    """
    if usage and {"-h", "--help"} & {*sys.argv}:
        print(usage)
        sys.exit(0)
    project = find_kedro_project(Path.cwd())
    if project is None or not (project / "conf/base/parameters").is_dir():
        raise InputError(OUTSIDE)
    os.chdir(project)
    return project
