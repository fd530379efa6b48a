"""Nodes of `ingest`."""

import logging

import pandas as pd

from mrt_pipeline.config import EvaluationParams, TaskParams
from mrt_pipeline.errors import InputError
from mrt_pipeline.pipelines.assemble import make_task
from mrt_pipeline.rollouts.tables import problems_table
from mrt_pipeline.tracking.runs import log_problems

logger = logging.getLogger(__name__)


def make_problems(task: TaskParams, evaluation: EvaluationParams) -> pd.DataFrame:
    """All problems of the task, split into train, validation and test.

    Raises InputError if there are fewer than `evaluation` asks for: how many a file holds is not known earlier.
    """
    table = problems_table(make_task(task).problems())
    there = int((table["split"] == evaluation.split).sum())
    if evaluation.n_problems > there:
        raise InputError(
            f"evaluation.n_problems is {evaluation.n_problems}, but there are {there} {evaluation.split} problems: "
            "lower it"
        )
    log_problems(table, task.root.name)
    logger.info("Problems: %s", ", ".join(f"{n} {split}" for split, n in table["split"].value_counts().items()))
    return table
