"""`kedro run` in a copy of the project, and what it leaves behind."""

import subprocess
import sys
from pathlib import Path

import mlflow
import pandas as pd

from mrt_pipeline.schemas import (
    ACCURACY,
    ANYTIME,
    EPISODES,
    MAJORITY,
    PROBLEMS,
    REGRET,
    REGRET_SOURCES,
    REGRET_SOURCES_SUMMARY,
    ROLLOUTS,
    STOP_AND_VOTE,
    VOTES,
)

ROOT = Path(__file__).parents[2]
TABLES = {
    "01_raw/problems": PROBLEMS,
    "02_intermediate/rollouts": ROLLOUTS,
    "07_model_output/base_rollouts": ROLLOUTS,
    "07_model_output/base_samples": ROLLOUTS,
    "03_primary/episodes": EPISODES,
    "07_model_output/base_anytime": ANYTIME,
    "07_model_output/trained_rollouts": ROLLOUTS,
    "07_model_output/trained_samples": ROLLOUTS,
    "07_model_output/trained_episodes": EPISODES,
    "07_model_output/base_votes": VOTES,
    "07_model_output/trained_votes": VOTES,
    "08_reporting/regret": REGRET,
    "08_reporting/regret_sources": REGRET_SOURCES,
    "08_reporting/regret_sources_summary": REGRET_SOURCES_SUMMARY,
    "08_reporting/stop_and_vote": STOP_AND_VOTE,
    "08_reporting/accuracy": ACCURACY,
    "08_reporting/majority": MAJORITY,
}


def kedro(project, *arguments):
    command = [str(Path(sys.executable).with_name("kedro")), *arguments]
    return subprocess.run(command, cwd=project, capture_output=True, text=True, timeout=900)


def run(project, params, pipeline="mrt_rl", preset="smoke"):
    given = f"preset={preset},{params}" if preset else params
    return kedro(project, "run", f"--pipeline={pipeline}", "--params", given)


def tables(project):
    return {name: pd.read_parquet(project / "data" / f"{name}.parquet") for name in TABLES}


def runs(project):
    client = mlflow.MlflowClient(f"sqlite:///{project}/mlflow.db")
    experiment = client.get_experiment_by_name("mrt-pipeline")
    return client, client.search_runs([experiment.experiment_id], order_by=["attributes.start_time ASC"])
