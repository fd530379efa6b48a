"""Nodes of `ingest`."""

import logging

import pandas as pd

from mrt_pipeline.config import TaskParams
from mrt_pipeline.pipelines.assemble import make_task
from mrt_pipeline.rollouts.tables import problems_table

logger = logging.getLogger(__name__)


def make_problems(task: TaskParams) -> pd.DataFrame:
    """All problems of the task, split into train, validation and test."""
    table = problems_table(make_task(task).problems())
    logger.info("Problems: %s", ", ".join(f"{n} {split}" for split, n in table["split"].value_counts().items()))
    return table
