"""Nodes of `ingest`."""

import logging

import pandas as pd

from mrt_pipeline.tables import problems_table
from mrt_pipeline.tasks.base import Task
from mrt_pipeline.tracking.runs import log_problems

logger = logging.getLogger(__name__)


def make_problems(task: Task) -> pd.DataFrame:
    """All problems of the task, split into train, validation and test."""
    table = problems_table(task.problems())
    log_problems(table, task.name)
    logger.info("Problems: %s", ", ".join(f"{n} {split}" for split, n in table["split"].value_counts().items()))
    return table
