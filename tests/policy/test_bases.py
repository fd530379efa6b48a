"""The base policy that ships with the package is the one that the default configuration would train."""

import hashlib
import json
import logging
import tomllib
from pathlib import Path

import pytest
import torch

import mrt_pipeline
from mrt_pipeline.config import Parameters
from mrt_pipeline.config_loader import compose_parameters
from mrt_pipeline.keys import configuration_key
from mrt_pipeline.pipelines.base_policy import nodes
from mrt_pipeline.pipelines.ingest.nodes import make_problems
from mrt_pipeline.policy.policy import SavedPolicy, shipped_base
from mrt_pipeline.tasks.countdown import Countdown
from mrt_pipeline.trainer.params import TinyPolicy
from mrt_pipeline.trainer.warm_start import warm_start

ROOT = Path(__file__).parents[2]
PACKAGE = Path(mrt_pipeline.__file__).parent
BASES = PACKAGE / "policy/bases"
FOLDER = BASES / "countdown"
RECORD = json.loads((FOLDER / "warm_start.json").read_text())


def parameters(**overrides):
    return Parameters.model_validate(compose_parameters(ROOT / "conf/base/parameters", overrides))


@pytest.fixture
def no_training(monkeypatch):
    def refuse(*given):
        raise AssertionError("a base is trained")

    monkeypatch.setattr(nodes, "_warm_start", refuse)


@pytest.mark.parametrize("preset", ["none", "smoke"])
def test_the_default_configuration_is_the_one_that_it_was_made_for(preset):
    tree = parameters(preset=preset)
    saved = shipped_base(configuration_key(task=tree.task, policy=tree.policy))
    assert saved is not None, (
        "no base ships for the default configuration any more, as a default or CODE_VERSION has changed: make it anew, "
        "as src/mrt_pipeline/policy/bases/README.md says"
    )
    assert saved.folder == FOLDER
    assert (RECORD["key"], RECORD["task"], RECORD["policy"]) == (
        saved.card.key,
        tree.task.model_dump(),
        tree.policy.model_dump(),
    )
    fresh = tree.policy.build(tree.task, saved.card.key)  # as the code of today has it
    assert saved.card == fresh.card and saved.tokenizer.get_vocab() == fresh.tokenizer.get_vocab()
    kept = {name: weights.shape for name, weights in saved.open().model.state_dict().items()}
    assert kept == {name: weights.shape for name, weights in fresh.model.state_dict().items()}


def test_the_checksum_and_the_page_are_of_these_weights():
    digest = hashlib.sha256((FOLDER / "model.safetensors").read_bytes()).hexdigest()
    assert (FOLDER / "model.safetensors.sha256").read_text().split() == [digest, "model.safetensors"]
    page = (BASES / "README.md").read_text()
    assert f"| `countdown` | the default: `task=countdown`, `policy=tiny` | `{RECORD['key']}` | `{digest}` |" in page


def test_the_first_steps_made_anew_have_the_recorded_losses():
    """Arithmetic of other processors or threads moves these losses by 1e-7; a learning rate 1 % higher by 1e-3."""
    task, policy = Countdown.model_validate(RECORD["task"]), TinyPolicy.model_validate(RECORD["policy"])
    problems = [problem for problem in task.problems() if problem.split == "train"]
    how, losses, expected = policy.warm_start, [], RECORD["first_losses"]

    class Enough(Exception):
        pass

    def log(metrics, step):
        losses.append(metrics["loss"])
        if step == len(expected):
            raise Enough

    with pytest.raises(Enough):
        sizes = (how.steps, how.batch_size, how.seed)
        warm_start(policy.build(task), task, problems, how.learner, *sizes, log, log_first=len(expected))
    assert len(losses) == 20 and losses == pytest.approx(expected, rel=1e-4)


def test_a_run_takes_it_without_training(no_training, monkeypatch, tmp_path, caplog):
    monkeypatch.chdir(tmp_path)
    tree = parameters()
    with caplog.at_level(logging.INFO):
        base = nodes.provide_base_policy(
            *(make_problems(tree.task), tree.task, tree.policy, tree.prover, tree.rollout, tree.evaluation)
        )
    assert base.folder == FOLDER and "Base policy: the one that ships" in caplog.text
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    "overrides",
    [
        {"policy.warm_start.remake": "true"},
        {"policy.warm_start.steps": "1999"},
        {"policy": "toy"},
        {"task.seed": "1"},
        {"task": "countdown_backtracking"},
    ],
)
def test_another_configuration_does_not_take_it(no_training, monkeypatch, tmp_path, overrides):
    monkeypatch.chdir(tmp_path)
    tree = parameters(**overrides)
    with pytest.raises(AssertionError, match="a base is trained"):
        nodes.make_base_policy(None, tree.task, tree.policy)


def test_a_base_that_is_trained_leaves_the_same_record(monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    tree = parameters(policy="toy", **{"policy.warm_start.steps": "22"})
    made = nodes.make_base_policy(make_problems(tree.task), tree.task, tree.policy)
    record = json.loads((made.folder / "warm_start.json").read_text())
    assert record.keys() == RECORD.keys() and record["key"] == made.card.key
    assert len(record["first_losses"]) == 20 and record["first_losses"][-1] < record["first_losses"][0]
    assert record["metrics"]["loss"] < record["first_losses"][-1]  # of the two steps after them


def test_a_copy_of_it_is_a_policy_of_its_own(tmp_path):
    policy = SavedPolicy.read(FOLDER).open_to_train(seed=0)
    with torch.no_grad():
        policy.model.model.norm.weight += 1
    policy.save(tmp_path)
    again = SavedPolicy.read(tmp_path)
    ids = torch.tensor([again.tokenizer("3 7 12 make 48 <think>")["input_ids"]])
    with torch.no_grad():
        expected, found = (model(input_ids=ids).logits for model in (policy.model.eval(), again.open().model))
    assert torch.equal(found, expected)


def test_all_of_it_is_in_a_wheel():
    settings = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["setuptools"]["package-data"]
    packed = {path for pattern in settings["mrt_pipeline"] for path in PACKAGE.glob(pattern)}
    assert {path for path in BASES.rglob("*") if path.is_file()} <= packed
