"""Nodes of `warm_start`."""

import json
import logging
from functools import partial
from pathlib import Path

import pandas as pd
from tqdm import tqdm

from mrt_pipeline.config import TaskParams, TinyPolicy
from mrt_pipeline.learner.warm_start import warm_start
from mrt_pipeline.pipelines.assemble import make_learner_settings, make_task, new_policy
from mrt_pipeline.pipelines.keys import configuration_key
from mrt_pipeline.pipelines.reuse import made_once
from mrt_pipeline.rollouts.tables import problems_from_table
from mrt_pipeline.tracking.runs import log_metrics

logger = logging.getLogger(__name__)
_FOLDER = Path("data/06_models/warm_start")
_REPORT_EVERY = 200


def warm_start_policy(problems: pd.DataFrame, task: TaskParams, policy: TinyPolicy) -> dict[str, str]:
    """Train the base policy on imperfect search traces, or reuse the one that this very configuration made."""
    key = configuration_key(task=task, policy=policy)
    folder = _FOLDER / key
    made = made_once(folder, partial(_warm_start, problems, task, policy))
    logger.info("Base policy: %s", f"written to {folder}" if made else f"reusing {folder}, of the same configuration")
    return {"name": "base", "path": str(folder), "key": key}


def _warm_start(problems: pd.DataFrame, task: TaskParams, policy: TinyPolicy, folder: Path) -> None:
    game = make_task(task)
    fresh = new_policy(policy, game)
    params = policy.warm_start
    logger.info("Warm start of a policy of %d parameters", fresh.n_parameters)
    with tqdm(total=params.steps, desc="warm start", unit="step", disable=None) as bar:

        def log(metrics: dict[str, float], step: int) -> None:
            bar.update(step - bar.n)
            bar.set_postfix(loss=f"{metrics['loss']:.3f}")
            if step % _REPORT_EVERY == 0:
                logger.info("Warm start, step %d of %d: loss %.3f", step, params.steps, metrics["loss"])
            log_metrics({f"warm_start/{name}": value for name, value in metrics.items()}, step)

        metrics = warm_start(
            fresh,
            game,
            problems_from_table(problems, "train"),
            make_learner_settings(params.learner),
            params.steps,
            params.batch_size,
            params.seed,
            log,
        )
    fresh.save(folder)
    record = {"task": task.model_dump(), "policy": policy.model_dump(), "metrics": metrics}
    (folder / "warm_start.json").write_text(json.dumps(record, indent=2))
