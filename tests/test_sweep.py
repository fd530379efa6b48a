"""Sweeps as a user runs them, at toy size, in a copy of the project."""

import json
import os
import subprocess
import sys
from pathlib import Path

import mlflow
import pytest

from mrt_pipeline.sweep import command, expand, job_request

ROOT = Path(__file__).parents[1]
TINY = ["preset=smoke", "policy=toy", "training.sampled_tokens=1500", "training.n_validation=4"]
TINY += ["evaluation.n_problems=4"]


@pytest.fixture(scope="module")
def project(copy_project):
    return copy_project()


@pytest.fixture(scope="module")
def untouched(copy_project):
    """Another, in which nothing is ever run."""
    return copy_project()


def sweep(project, *arguments):
    return subprocess.run(
        [sys.executable, "-m", "mrt_pipeline.sweep", *TINY, *arguments],
        cwd=project,
        capture_output=True,
        text=True,
        timeout=900,
    )


@pytest.fixture(scope="module")
def first(project):
    result = sweep(project, "algorithm=grpo,star", "seed=1", "hydra/launcher=joblib", "hydra.launcher.n_jobs=2")
    assert result.returncode == 0, result.stdout + result.stderr
    return result.stdout


def parent_of(project, output):
    client = mlflow.MlflowClient(f"sqlite:///{project}/mlflow.db")
    return client, output.split("parent run ")[1].split()[0]


def jobs_of(client, parent, folder):
    return json.loads(Path(client.download_artifacts(parent, "sweep.json", str(folder))).read_text())


def test_jobs_are_runs_under_one_parent_and_share_the_base_policy(project, first, tmp_path):
    client, parent = parent_of(project, first)
    jobs = jobs_of(client, parent, tmp_path)
    assert [job["status"] for job in jobs] == ["finished", "finished"]
    runs = [client.get_run(job["run_id"]) for job in jobs]
    assert [run.data.tags["algorithm"] for run in runs] == ["grpo", "star"]
    assert [run.data.tags["pipeline"] for run in runs] == ["mrt_rl", "mrt_star"]
    assert [run.data.params["training.learner.minibatches"] for run in runs] == ["2", "32"]  # star's own default
    assert all(run.data.tags["mlflow.parentRunId"] == parent for run in runs)
    assert all(run.info.status == "FINISHED" for run in (*runs, client.get_run(parent)))
    assert len(list((project / "data/06_models/warm_start").glob("*/warm_start.json"))) == 1
    assert not list((project / "data/sweep").glob("*/*/data"))  # their tables are artifacts of the runs
    assert not list((project / "data").glob("08_reporting/*"))
    assert len(next((project / "data/sweep").glob("*/0/job.log")).read_text().splitlines()) > len(first.splitlines())
    assert len(first.splitlines()) == 7  # what the jobs print is in their logs


def test_finished_jobs_are_reused_and_failed_ones_listed(project, first, tmp_path):
    result = sweep(project, "algorithm=grpo", "seed=1", "training.learner.learning_rate=6e-4,1e+30")
    assert result.returncode == 1
    assert "finished: 0, reused: 1, failed: 1" in result.stdout
    assert "Traceback" not in result.stdout + result.stderr
    assert "lower the learning_rate" in result.stdout
    alone = ",".join([*TINY, "algorithm=grpo", "seed=1", "training.learner.learning_rate=1e+30"])
    assert f"kedro run --pipeline=mrt_rl --params {alone}\n" in result.stdout
    client, parent = parent_of(project, result.stdout)
    reused, failed = jobs_of(client, parent, tmp_path)
    first_client, first_parent = parent_of(project, first)
    assert reused["run_id"] == jobs_of(first_client, first_parent, tmp_path)[0]["run_id"]
    assert failed["run_id"] is None


@pytest.mark.parametrize(
    ("arguments", "named"),
    [
        (["algorithm=grpo,nothing", "seed=5"], "there is no algorithm/nothing; there are: anytime, brpo, "),
        (["algoritm=grpo"], "unknown parameter 'algoritm'; allowed here: algorithm, "),
        (["algorithm=grpo", "algorithm.alpha=0,1"], "unknown parameter 'algorithm.alpha'; allowed here: divide_by_std"),
        (["training.group_size=4,1"], "training.group_size"),
        (["seed=[1"], "seed=[1 cannot be read"),
    ],
)
def test_a_refused_sweep_leaves_nothing_behind(untouched, arguments, named):
    result = sweep(untouched, *arguments)
    assert result.returncode == 1 and not result.stdout
    assert result.stderr.startswith("Error: ") and named in result.stderr and "Traceback" not in result.stderr
    assert not (untouched / "data").exists() and not (untouched / "mlflow.db").exists()


@pytest.mark.parametrize(
    ("flag", "shown"),
    [
        (["--cfg", "job", "algorithm=grpo"], "divide_by_std: false"),
        (["--info", "searchpath"], "class://"),
        (["--help"], "prover: exact, sampled"),
        (["--hydra-help"], "--shell-completion"),
        (["-sc", "install=bash"], "hydra_bash_completion"),
    ],
)
def test_hydras_flags_show_and_run_nothing(untouched, flag, shown):
    result = subprocess.run(
        [sys.executable, "-m", "mrt_pipeline.sweep", *flag], cwd=untouched, capture_output=True, text=True, timeout=120
    )
    assert result.returncode == 0 and shown in result.stdout, result.stderr
    assert "INFO" not in result.stdout  # a shell reads what installs the completion
    assert not (untouched / "data").exists() and not (untouched / "mlflow.db").exists()


def test_completion_knows_files_classes_and_keys(untouched):
    def completed(line):
        code = "from mrt_pipeline.sweep import main; main()"
        command = [sys.executable, "-c", code, "-sc", "query=bash"]
        asked = {**os.environ, "COMP_LINE": f"mrt-sweep {line}", "COMP_POINT": "99"}
        return subprocess.run(command, cwd=untouched, capture_output=True, text=True, env=asked, timeout=120).stdout

    assert completed("prover=").split() == ["prover=exact", "prover=sampled"]
    assert completed("algorithm=mrt_online").split() == ["algorithm=mrt_online", "algorithm=mrt_online_v0_1"]
    assert completed("training.gr").split() == ["training.group_size=", "training.groups="]


def test_what_a_job_runs():
    assert job_request(["algorithm=grpo", "seed=2"]) == ("mrt_rl", {"algorithm": "grpo", "seed": "2"})
    assert job_request(["algorithm=star"]) == ("mrt_star", {"algorithm": "star", "training": "star"})
    assert job_request([]) == ("mrt_rl", {})
    assert command(["algorithm=star", "seed=2"])[2:] == ["--pipeline=mrt_star", "--params", "algorithm=star,seed=2"]


def test_jobs_are_all_combinations():
    jobs = expand(["preset=smoke", "algorithm=grpo,star", "seed=range(1,3)", "compare.runs=[a,b]"])
    assert jobs == [
        ["preset=smoke", f"algorithm={name}", f"seed={seed}", "compare.runs=[a,b]"]
        for name in ("grpo", "star")
        for seed in (1, 2)
    ]
