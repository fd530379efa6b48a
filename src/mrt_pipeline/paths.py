"""Where a run keeps its tables."""

import os
from pathlib import Path

DATA_VARIABLE = "MRT_PIPELINE_DATA"


def data_folder() -> Path:
    """`data`, or what the environment variable MRT_PIPELINE_DATA says, so that runs side by side do not collide.

    Policies and checkpoints are kept under keys of their configuration and stay in `data` for all.
    """
    return Path(os.environ.get(DATA_VARIABLE) or "data")
