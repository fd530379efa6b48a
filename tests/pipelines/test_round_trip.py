"""What one run has trained, another process evaluates, compares or trains on: `policy.path`."""

from contextlib import contextmanager
from pathlib import Path

import mlflow
import pandas as pd
import pytest
import torch
from job import kedro, run, runs

from mrt_pipeline.config import Parameters
from mrt_pipeline.config_loader import compose_parameters
from mrt_pipeline.errors import InputError
from mrt_pipeline.pipelines.base_policy.nodes import check_fit, make_base_policy
from mrt_pipeline.pipelines.ingest.nodes import make_problems
from mrt_pipeline.policy.configured import LanguageModelPolicy
from mrt_pipeline.policy.policy import SavedPolicy
from mrt_pipeline.rollouts.prover import SampledProver
from mrt_pipeline.tracking.find_policies import fetch_policy, moves_on

LORA = (
    "policy=smollm2,policy.gguf_file=null,policy.dtype=float32,task=reasoning_gym,prover=sampled,prover.n_answers=2,"
    "rollout.thinking_budget=12,training.sampled_tokens=400,training.n_validation=4,task.n_train=24,task.n_validation=4,"
    "task.n_test=4,evaluation.n_problems=4,evaluation.n_sample_problems=4,evaluation.n_vote_problems=2"
)


def measured(project, policy):
    folder = project / "data/07_model_output"
    tables = [pd.read_parquet(folder / f"{policy}_{name}.parquet") for name in ("episodes", "anytime")]
    return [table.drop(columns="policy") for table in tables]


def check_the_same(before, after):
    for left, right in zip(before, after, strict=True):
        pd.testing.assert_frame_equal(left, right, check_exact=True)


@contextmanager
def tracking_at(folder):
    before = mlflow.get_tracking_uri()
    mlflow.set_tracking_uri(f"sqlite:///{folder}/mlflow.db")
    try:
        yield
    finally:
        mlflow.set_tracking_uri(before)


@pytest.fixture(scope="module")
def project(copy_project):
    """A project in which a policy was trained and registered, from the base that ships, and its run."""
    project = copy_project()
    result = run(project, "training.register_as=toy,training.learner.learning_rate=0.003")
    assert result.returncode == 0, result.stdout + result.stderr
    client, (last,) = runs(project)
    client.set_registered_model_alias("toy", "best", "1")
    return project, last.info.run_id, measured(project, "trained")


def test_what_was_trained_is_evaluated_in_another_process(project):
    project, _, trained = project
    result = run(project, "policy.path=models:/toy@best", pipeline="evaluate")
    assert result.returncode == 0, result.stdout + result.stderr
    check_the_same(trained, measured(project, "base"))


def test_a_run_a_version_and_an_alias_lead_to_the_same_policy(project, monkeypatch):
    project, run_id, _ = project
    monkeypatch.chdir(project)
    with tracking_at(project):
        names = (run_id, "models:/toy/1", "models:/toy@best", "models:/toy/latest")
        found = [SavedPolicy.read(fetch_policy(name)) for name in names]
    expected = SavedPolicy.read(project / "data/06_models/trained_policy")
    for saved in found:
        assert saved.card == expected.card
        weights, wanted = saved.open().model.state_dict(), expected.open().model.state_dict()
        assert all(torch.equal(weights[name], wanted[name]) for name in wanted)


def test_what_was_trained_is_trained_on_and_compared(project):
    project, run_id, trained = project
    result = run(project, f"policy.path={run_id},seed=5,training.learner.learning_rate=0.003")
    assert result.returncode == 0, result.stdout + result.stderr
    check_the_same(trained, measured(project, "base"))
    both = ",".join(r.info.run_id for r in runs(project)[1] if r.data.tags["pipeline"] == "mrt_rl")
    given = f"runs=[{both}],compare.baseline='mrt_online policy.path=None',compare.n_resamples=50"
    given += ",compare.allow_different=true"  # of other base policies
    result = kedro(project, "run", "--pipeline=compare", "--params", given)
    assert result.returncode == 0, result.stdout + result.stderr


@pytest.mark.long
@pytest.mark.parametrize("weights", ["adapters", "all"])
def test_a_language_model_makes_the_round_trip(copy_project, language_model, weights):
    project = copy_project()
    given = f"{LORA},training.learner.learning_rate=0.01" + (",policy.lora=null" if weights == "all" else "")
    result = run(project, f"{given},policy.path={language_model}")
    assert result.returncode == 0, result.stdout + result.stderr
    trained = measured(project, "trained")
    (_, (last,)), folder = runs(project), project / "data/06_models/trained_policy"
    assert (folder / "adapter_config.json").exists() == (weights == "adapters")
    if weights == "adapters":  # as any adapters: their folder, without a card of this project
        plain = project / "adapters"
        plain.mkdir()
        for file in folder.glob("adapter_*"):
            (plain / file.name).write_bytes(file.read_bytes())
        result = run(project, f"{given},policy.path=adapters", pipeline="evaluate")
        assert result.returncode == 0, result.stdout + result.stderr
        check_the_same(trained, measured(project, "base"))
    result = run(project, f"{given},policy.path={last.info.run_id},seed=1")  # goes on from there
    assert result.returncode == 0, result.stdout + result.stderr
    check_the_same(trained, measured(project, "base"))


@pytest.mark.parametrize(
    ("path", "said"),
    [
        ("0" * 32, "has no policy at policy.path=0000"),
        ("models:/nothing/1", "has no policy at policy.path=models:/nothing/1"),
        ("models:/nothing@best", "has no policy at"),
        ("models:/nothing", "is not of the form"),
    ],
)
def test_what_mlflow_does_not_have_is_refused_in_words(tmp_path, monkeypatch, path, said):
    monkeypatch.chdir(tmp_path)
    with tracking_at(tmp_path), pytest.raises(InputError, match=said):
        fetch_policy(path)
    assert fetch_policy("some/folder") is None


@pytest.mark.parametrize(
    ("overrides", "said"),
    [
        ({"task.n_numbers": 4, "rollout.answer_tokens": 7}, "does not know the symbol"),
        (
            {"policy": "smollm2", "policy.gguf_file": "null", "task": "reasoning_gym", "prover": "sampled"},
            "is made of symbols: give policy=tiny",
        ),
    ],
)
def test_a_policy_of_another_kind_is_refused_in_words(project, monkeypatch, overrides, said):
    project, _, _ = project
    monkeypatch.chdir(project)
    sizes = {"task.n_train": 64, "task.n_validation": 16, "task.n_test": 16}
    given = {"preset": "smoke", "policy.path": str(project / "data/06_models/trained_policy"), **sizes, **overrides}
    tree = Parameters.model_validate(compose_parameters(project / "conf/base/parameters", given))
    problems, evaluation = make_problems(tree.task), tree.evaluation.model_copy(update={"budget_multiples": [1.0]})
    with pytest.raises(InputError, match=said):
        base = make_base_policy(problems, tree.task, tree.policy)
        check_fit(problems, base, tree.task, tree.policy, tree.prover, tree.rollout, evaluation)


def test_what_a_policy_was_saved_with_is_checked_too(project, tmp_path, monkeypatch, language_model):
    """Not only what the configuration says of a template that the policy does not use."""
    project, _, _ = project
    monkeypatch.chdir(tmp_path)
    words = {"kind": "think", "family": None, "suffix": "", "opening": "", "close": "####", "stop_phrase": "####"}
    free = LanguageModelPolicy(path=language_model, max_length=256, template={**words, "natural_answer": "free"})
    free.saved(language_model).open().save(tmp_path / "free")
    given = {"policy": "smollm2", "policy.gguf_file": "null", "task": "reasoning_gym", "policy.path": "free"}
    small = {"task.n_train": 8, "task.n_validation": 2, "task.n_test": 4, "training.n_validation": 2}
    tree = Parameters.model_validate(
        compose_parameters(
            project / "conf/base/parameters", {"preset": "smoke", **given, **small, "evaluation.n_problems": 4}
        )
    )
    problems = make_problems(tree.task)
    base = make_base_policy(problems, tree.task, tree.policy)
    evaluation = tree.evaluation.model_copy(update={"budget_multiples": [1.0]})
    with_window = evaluation.model_copy(update={"window": 2})
    with pytest.raises(InputError, match=r"by what it was saved with: .*natural_answer=free needs prover=sampled"):
        check_fit(problems, base, tree.task, tree.policy, tree.prover, tree.rollout, evaluation)
    with pytest.raises(InputError, match="does not answer in its stream"):
        check_fit(problems, base, tree.task, tree.policy, SampledProver(), tree.rollout, with_window)


def test_a_folder_without_a_policy_is_refused_before_anything_is_sampled(project):
    project, _, _ = project
    result = run(project, "policy.path=conf", pipeline="evaluate")
    assert result.returncode == 1 and "conf holds no policy" in result.stderr and "Traceback" not in result.stderr
    assert Path(project).exists()


@pytest.mark.parametrize("path", ["models:/toy@best", "models:/toy/latest"])
def test_an_alias_moves_on(path):
    assert moves_on(path)


@pytest.mark.parametrize("path", ["", "models:/toy/1", "0" * 32, "some/folder", "an/id@hub", "models:/nothing"])
def test_other_paths_do_not(path):
    assert not moves_on(path)
