"""The real main job at toy size, as a user runs it, in a copy of the project."""

import json
import re
import shutil
import subprocess
import sys
from pathlib import Path

import mlflow
import pandas as pd
import pytest
from job import TABLES, kedro, run, runs, tables

from mrt_pipeline.config import CompareParams
from mrt_pipeline.errors import InputError
from mrt_pipeline.pipelines.compare.nodes import read_arms
from mrt_pipeline.schemas import ROLLOUTS

ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="module")
def project(copy_project):
    """A copy of the project, in which the main job ran twice with the same seed and once as GRPO."""
    folder = copy_project()
    results = {}
    for name, params in (("first", "seed=3"), ("again", "seed=3"), ("grpo", "seed=3,algorithm=grpo")):
        result = run(folder, params)
        assert result.returncode == 0, result.stdout + result.stderr
        report = (folder / "data/08_reporting/report.md").read_text()
        results[name] = (result.stdout, tables(folder), result.stderr, report)
    return folder, results


def test_every_table_fits_its_schema(project):
    for name, table in project[1]["first"][1].items():
        TABLES[name].validate(table)
        assert len(table) > 0
    linearised = pd.read_parquet(project[0] / "data/07_model_output/trained_linearised.parquet")
    assert len(ROLLOUTS.validate(linearised)) == 0  # think tags: no window


def test_the_same_seed_gives_the_same_tables_and_metrics(project):
    folder, results = project
    for name, table in results["first"][1].items():
        pd.testing.assert_frame_equal(table, results["again"][1][name])
    client, (first, again, *_) = runs(folder)
    steady = [name for name in first.data.metrics if not name.startswith(("time/", "warm_start/", "system/"))]
    assert "evaluation/regret" in steady
    for name in steady:
        history = [
            sorted((point.step, point.value) for point in client.get_metric_history(run_.info.run_id, name))
            for run_ in (first, again)  # MLflow promises no order, and sorts by times that may be equal
        ]
        assert history[0] == history[1], name


def test_another_algorithm_trains_another_policy_on_the_same_base(project):
    _, results = project
    first, grpo = results["first"][1], results["grpo"][1]
    pd.testing.assert_frame_equal(first["07_model_output/base_rollouts"], grpo["07_model_output/base_rollouts"])
    key = "07_model_output/trained_rollouts"
    assert first[key]["text"].tolist() != grpo[key]["text"].tolist()


def test_the_console_says_what_runs_a_line_a_node_and_in_the_end_what_was_found(project):
    folder, results = project
    printed, _, _, report = results["first"]
    lines = printed.splitlines()
    assert "mrt_rl: 25 nodes, algorithm mrt_online, task countdown, policy tiny, seed 3" in lines[0]
    told = [re.search(r" INFO +(\d+)/25 ([\w.]+)  (\d+\.\d s|\d+ min \d+ s)$", line) for line in lines]
    nodes = [found for found in told if found]
    assert [int(found[1]) for found in nodes] == list(range(1, 26))
    assert len({found[2] for found in nodes}) == 25 and nodes[0][2] == "ingest.make_problems"
    closing = lines[told.index(nodes[-1]) + 1 :]
    assert len(closing) <= 20
    _, said, table, *_ = report.split("\n\n")
    assert said in closing and table in "\n".join(closing)
    (run_, *_) = runs(folder)[1]
    assert any(f"/runs/{run_.info.run_id}" in line and "mlflow ui" in line for line in closing)
    assert any("data/08_reporting/report.md" in line for line in closing)
    assert any("kedro viz run" in line for line in closing)


def test_nothing_but_the_project_speaks(project):
    """No library's warnings and no other logs than ours: each line before the closing has our form."""
    printed, _, errors, _ = project[1]["first"]
    assert errors == ""
    assert "Warning" not in printed
    head = printed[: printed.index("finished in")].splitlines()
    assert all(re.match(r"\d\d:\d\d:\d\d (INFO|WARNING) ", line) for line in head)
    assert all("Look before you train" in line for line in head if " WARNING " in line)


def test_mlflow_holds_parameters_metrics_by_budget_and_artifacts(project):
    folder, _ = project
    client, found = runs(folder)
    assert [run_.info.status for run_ in found[:3]] == ["FINISHED"] * 3
    first = found[0]
    assert first.data.params["algorithm.alpha"] == "1.0"
    assert first.data.params["training.learner.optimizer"] == "adamw"
    assert first.data.tags["algorithm"] == "mrt_online"
    assert "seed=3" in first.data.tags["kedro_command"]
    budgets = [point.step for point in client.get_metric_history(first.info.run_id, "evaluation/regret")]
    assert budgets == [27, 54, 108, 216]
    steps = [point.step for point in client.get_metric_history(first.info.run_id, "train/reward")]
    assert steps == list(range(1, len(steps) + 1))

    def artifacts(path):
        return {Path(item.path).name for item in client.list_artifacts(first.info.run_id, path)}

    assert {"tables", "figures", "policy", "samples", "report.md", "parameters.yaml"} <= artifacts("")
    assert {"regret.parquet", "trained_episodes.parquet"} <= artifacts("tables")
    assert artifacts("figures") == {
        "anytime.html",
        "regret.html",
        "progress.html",
        "regret_sources.html",
        "stop_and_vote.html",
        "majority.html",
    }
    assert "model.safetensors" in artifacts("policy")


def test_thoughts_are_traces_of_the_run_with_a_span_for_each_episode(project):
    folder, _ = project
    client, (first, *_) = runs(folder)
    shown = client.search_traces(locations=[first.info.experiment_id], run_id=first.info.run_id)
    by_policy = {policy: [t for t in shown if t.info.tags["policy"] == policy] for policy in ("base", "trained")}
    assert [len(traces) for traces in by_policy.values()] == [4, 4]
    episodes = project[1]["first"][1]["07_model_output/trained_episodes"]
    trace = by_policy["trained"][0]
    spans = sorted((span for span in trace.data.spans if span.parent_id), key=lambda span: span.start_time_ns)
    (root,) = (span for span in trace.data.spans if not span.parent_id)
    rows = episodes[(episodes["problem_id"] == root.name.split()[-1]) & (episodes["rollout_id"] == 0)]
    assert [span.attributes["J_after"] for span in spans[:-1]] == pytest.approx(rows["success"].tolist()[1:])


def test_a_policy_is_evaluated_without_training(project):
    folder, results = project
    result = kedro(folder, "run", "--pipeline=evaluate", "--params", "preset=smoke,seed=3")
    assert result.returncode == 0, result.stdout + result.stderr
    assert "train_policy" not in result.stdout
    expected = results["first"][1]["08_reporting/regret"]
    found = pd.read_parquet(folder / "data/08_reporting/regret.parquet")
    pd.testing.assert_frame_equal(found, expected[expected["policy"] == "base"].reset_index(drop=True))


def test_a_killed_training_goes_on_and_ends_as_if_nothing_had_happened(project):
    folder, results = project
    script = (
        "import mrt_pipeline.trainer.reinforce as r, os\n"
        "save = r.save_checkpoint\n"
        "def once(folder, learner, state):\n"
        "    save(folder, learner, state)\n"
        "    if state['step'] == 2: os._exit(9)\n"
        "r.save_checkpoint = once\n"
        "from kedro.framework.cli.cli import main\n"
        "main()\n"
    )
    killed = subprocess.run(
        [sys.executable, "-c", script, "run", "--pipeline=mrt_rl", "--params", "preset=smoke,seed=3"],
        cwd=folder,
        capture_output=True,
        text=True,
        timeout=900,
    )
    assert killed.returncode == 9, killed.stdout + killed.stderr
    assert list((folder / "data/06_models/checkpoints").iterdir())
    resumed = run(folder, "seed=3")
    assert resumed.returncode == 0, resumed.stdout + resumed.stderr
    assert "goes on from the checkpoint" in resumed.stdout
    assert not list((folder / "data/06_models/checkpoints").iterdir())
    for name, table in tables(folder).items():
        pd.testing.assert_frame_equal(table, results["first"][1][name])
    client, found = runs(folder)
    steps = [point.step for point in client.get_metric_history(found[-1].info.run_id, "train/reward")]
    assert steps == list(range(1, len(steps) + 1))


def test_wrong_parameters_are_refused_in_words_before_anything_runs(project):
    folder, _ = project
    result = run(folder, "algorithm.alhpa=1")
    assert result.returncode == 1
    assert "unknown parameter 'algorithm.alhpa'" in result.stderr
    assert "Traceback" not in result.stdout + result.stderr
    assert "make_problems" not in result.stdout


def test_the_last_stages_run_alone_on_what_the_first_have_made(project):
    folder, results = project
    params = "preset=smoke,seed=3"
    shutil.rmtree(folder / "data/06_models/trained_policy")
    for made in (folder / "data/07_model_output").glob("trained_*.parquet"):
        made.unlink()
    for stage in ("train", "evaluate_trained"):
        result = kedro(folder, "run", f"--pipelines={stage}", "--params", params)
        assert result.returncode == 0, result.stdout + result.stderr
        assert "make_problems" not in result.stdout
    for name, table in tables(folder).items():
        pd.testing.assert_frame_equal(table, results["first"][1][name])
    refused = kedro(folder, "run", "--pipelines=evaluate_trained", "--params", params + ",algorithm=grpo")
    assert refused.returncode == 1
    assert "'trained_policy' in data/ was made by another configuration" in refused.stderr


def test_a_stage_refuses_a_policy_that_another_configuration_made(project):
    folder, _ = project
    result = kedro(folder, "run", "--pipelines=rollout", "--params", "preset=smoke,policy.warm_start.seed=9")
    assert result.returncode == 1
    assert "was made by another configuration" in result.stderr
    assert "Traceback" not in result.stdout + result.stderr


STAR = "preset=smoke,prover=sampled,training.groups=4,training.learner.kl_beta=0.01"


def test_mrt_star_runs_on_the_same_base_with_the_sampled_prover_and_a_kl_term(project):
    folder, _ = project
    result = kedro(folder, "run", "--pipeline=mrt_star", "--params", STAR)
    assert result.returncode == 0, result.stdout + result.stderr
    assert "Base policy: the one that ships" in result.stdout
    assert (folder / "data/08_reporting/report.md").read_text().startswith("# mrt_star, seed 0")


def test_the_warm_start_is_kept_under_a_key_of_its_configuration(project):
    folder, _ = project
    assert not (folder / "data/06_models/warm_start").exists()  # the other tests have the one that ships
    quick = "preset=smoke,policy=toy,policy.warm_start.steps=10"
    for params, said, n_kept in (
        (quick, "written to", 1),
        (quick, "reusing", 1),
        (f"{quick},policy.warm_start.seed=1", "written to", 2),
    ):
        result = kedro(folder, "run", "--pipelines=ingest,base_policy", "--params", params)
        assert result.returncode == 0, result.stdout + result.stderr
        assert f"Base policy: {said}" in result.stdout
        kept = list((folder / "data/06_models/warm_start").glob("*/warm_start.json"))
        assert len(kept) == n_kept
    record = json.loads(kept[0].read_text())
    assert record["policy"]["hidden_size"] == 64 and record["key"] == kept[0].parent.name


def test_finished_runs_are_compared(project):
    folder, results = project
    names = ",".join(run_.info.run_id for run_ in runs(folder)[1][:3])
    result = kedro(folder, "run", "--pipeline=compare", "--params", f"runs=[{names}],compare.keep=kept")
    assert result.returncode == 0, result.stdout + result.stderr
    report = folder / "data/08_reporting/compare"
    comparison = pd.read_parquet(report / "comparison.parquet").set_index(["arm", "quantity", "budget", "forced"])
    for arm in read_arms(CompareParams(runs=str(folder / "kept"))):  # without the runs
        for key, values in arm.values.items():
            assert arm.mean(values) == pytest.approx(comparison.loc[(arm.name, *key), "mean"], abs=1e-3)
    for algorithm, run_name in (("mrt_online", "first"), ("grpo", "grpo")):
        table = results[run_name][1]["08_reporting/regret"].query("definition == 'paper'")
        for row in table.itertuples(index=False):  # the same numbers as the run's own report gave
            arm = algorithm if row.policy == "trained" else "base"
            found = comparison.loc[(arm, "regret", row.budget, row.forced), "mean"]
            assert found == pytest.approx(row.regret)
    differences = pd.read_parquet(report / "comparison_differences.parquet")
    assert set(differences["against"]) == {"base", "grpo"}
    _, said, *tables_ = (report / "comparison.md").read_text().split("\n\n")
    assert said in result.stdout and "the lowest regret" in said
    assert "## Tokens" in tables_ and "## Tokens" not in result.stdout
    assert {path.name for path in (report / "figures").glob("*.html")} == {
        "anytime.html",
        "regret.html",
        "regret_sources.html",
        "learning.html",
        "majority.html",
    }
    majority = pd.read_parquet(report / "comparison_majority.parquet")
    samples = results["grpo"][1]["07_model_output/trained_samples"]
    once = majority[(majority["arm"] == "grpo") & (majority["k"] == 1)]
    assert once["accuracy"].item() == pytest.approx(samples["reward"].mean())
    assert set(pd.read_parquet(report / "comparison_voting.parquet")["arm"]) == {"base", "mrt_online", "grpo"}
    sources = pd.read_parquet(report / "comparison_sources.parquet").set_index(["arm", "difficulty", "quantity"])
    for row in results["grpo"][1]["08_reporting/regret_sources_summary"].itertuples(index=False):
        found = sources.loc[("grpo" if row.policy == "trained" else "base", row.difficulty, row.quantity)]
        assert found["mean"] == pytest.approx(row.mean, nan_ok=True)  # the run's own report gave the same
    assert "## Where regret comes from" in (report / "comparison.md").read_text()
    (compared,) = [run_ for run_ in runs(folder)[1] if run_.data.tags["pipeline"] == "compare"]
    assert compared.info.status == "FINISHED"


def test_a_run_of_one_node_is_marked_as_partial_and_left_out_when_runs_are_compared(project):
    folder, _ = project
    result = kedro(
        folder, "run", "--pipeline=mrt_star", "--nodes=evaluate_trained.report", "--params", STAR
    )  # what lies in data/
    assert result.returncode == 0, result.stdout + result.stderr
    found = runs(folder)[1]
    first, _, grpo, *_, partial = found
    (star,) = [r for r in found[:-1] if r.data.tags["pipeline"] == "mrt_star"]
    assert (first.data.tags["partial"], star.data.tags["partial"], partial.data.tags["partial"]) == (
        "false",
        "false",
        "true",
    )
    assert partial.data.tags["configuration_key"] == star.data.tags["configuration_key"]
    names = ",".join(run_.info.run_id for run_ in (first, grpo, partial))
    result = kedro(folder, "run", "--pipeline=compare", "--params", f"runs=[{names}]")
    assert result.returncode == 0, result.stdout + result.stderr
    assert f"a part of its pipeline only: run {partial.info.run_id}" in " ".join(result.stdout.split())


def test_what_cannot_be_compared_is_refused_in_words(project):
    folder, _ = project
    first, _, grpo = (run_.info.run_id for run_ in runs(folder)[1][:3])
    n_runs = len(runs(folder)[1])
    refused = kedro(folder, "run", "--pipeline=compare", "--params", f"runs=[{first},{grpo}],compare.baseline=star")
    assert refused.returncode == 1 and "fits none of the arms" in refused.stderr
    assert len(runs(folder)[1]) == n_runs  # nothing was started that could have failed
    before = mlflow.get_tracking_uri()
    mlflow.set_tracking_uri(f"sqlite:///{folder}/mlflow.db")
    how = {"allow_different": False, "n_resamples": 20, "confidence": 0.9, "seed": 0}
    try:
        with pytest.raises(InputError, match="say what to compare"):
            read_arms(CompareParams(runs=[], baseline="grpo", **how))
        with pytest.raises(InputError, match="there is no folder 'nowhere', and MLflow"):
            read_arms(CompareParams(runs="nowhere", baseline="grpo", **how))
        arms = read_arms(CompareParams(runs=[first, grpo], baseline="grpo", **how))
        assert [arm.name for arm in arms] == ["base", "mrt_online", "grpo"]
        with pytest.raises(InputError, match="fits none of the arms 'mrt_online', 'grpo'"):
            read_arms(CompareParams(runs=[first, grpo], baseline="star", **how))
    finally:
        mlflow.set_tracking_uri(before)


def test_nothing_is_reported_to_anybody(project):
    folder, _ = project
    assert (folder / "pyproject.toml").read_text() == (ROOT / "pyproject.toml").read_text()


def test_a_base_whose_answers_cannot_be_read_is_refused_before_training(project):
    folder, _ = project
    params = "policy=toy,policy.warm_start.steps=1,training.groups=16"
    result = run(folder, params)
    assert result.returncode == 1
    assert "cannot be read" in result.stderr and "policy.warm_start.steps" in result.stderr
    assert "train_policy" not in result.stdout and "Traceback" not in result.stdout + result.stderr
    assert "look_before_training" in result.stdout.splitlines()[-1]  # then Kedro has no more to say
    assert "ERROR" not in result.stdout and len(result.stderr.splitlines()) == 1
