"""Nodes of `warm_start`."""

import json
import logging
import shutil
from pathlib import Path

import pandas as pd
from tqdm import tqdm

from mrt_pipeline.config import CountdownTask, TinyPolicy
from mrt_pipeline.learner.warm_start import warm_start
from mrt_pipeline.pipelines.assemble import make_learner_settings, make_task, new_policy
from mrt_pipeline.pipelines.keys import configuration_key
from mrt_pipeline.rollouts.tables import problems_from_table
from mrt_pipeline.tracking.runs import log_metrics

logger = logging.getLogger(__name__)
_FOLDER = Path("data/06_models/warm_start")
_REPORT_EVERY = 200
_DONE = "warm_start.json"  # written last: a folder without it is unfinished


def warm_start_policy(problems: pd.DataFrame, task: CountdownTask, policy: TinyPolicy) -> dict[str, str]:
    """Train the base policy on imperfect search traces, or reuse the one that this very configuration made."""
    key = configuration_key(task=task, policy=policy)
    folder = _FOLDER / key
    if (folder / _DONE).exists():
        logger.info("Base policy: reusing %s, made by the same configuration", folder)
        return {"name": "base", "path": str(folder), "key": key}
    game = make_task(task)
    fresh = new_policy(policy, game)
    params = policy.warm_start
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
    unfinished = folder.with_name(f"{key}.new")
    shutil.rmtree(unfinished, ignore_errors=True)
    fresh.save(unfinished)
    record = {"task": task.model_dump(), "policy": policy.model_dump(), "metrics": metrics}
    (unfinished / _DONE).write_text(json.dumps(record, indent=2))
    shutil.rmtree(folder, ignore_errors=True)
    unfinished.rename(folder)
    logger.info("Base policy: %d parameters, written to %s", fresh.n_parameters, folder)
    return {"name": "base", "path": str(folder), "key": key}
