import numpy as np
import pytest
import torch

from mrt_pipeline.trainer.batch import TrainingSequence
from mrt_pipeline.trainer.checkpoint import load_checkpoint, save_checkpoint
from mrt_pipeline.trainer.learner import Learner, LearnerParams


def weights(policy):
    return torch.cat([p.detach().flatten() for p in policy.model.parameters()]).clone()


def batch(seed):
    rng = np.random.default_rng(seed)
    return [TrainingSequence(rng.integers(0, 16, size=9), 3, rng.normal(size=6), np.ones(6, bool)) for _ in range(3)]


@pytest.fixture
def make_learner(letters_policy, copy_policy):
    def make(optimizer="adamw"):
        policy = copy_policy(letters_policy)
        settings = LearnerParams(learning_rate=1e-3, optimizer=optimizer, minibatches=2, schedule="cosine")
        return policy, Learner(policy.model, settings)

    return make


@pytest.mark.parametrize("optimizer", ["adamw", "muon"])
def test_going_on_from_a_checkpoint_is_bit_equal_to_not_having_stopped(tmp_path, make_learner, optimizer):
    policy, learner = make_learner(optimizer)
    for step in range(3):
        learner.update(batch(step), step / 6, seed=step)
    save_checkpoint(tmp_path / "run", learner, {"step": 3})
    expected = [learner.update(batch(step), step / 6, seed=step) for step in range(3, 6)]

    resumed, other = make_learner(optimizer)
    assert load_checkpoint(tmp_path / "run", other) == {"step": 3}
    assert other.n_updates == 6
    found = [other.update(batch(step), step / 6, seed=step) for step in range(3, 6)]
    assert found == expected
    assert torch.equal(weights(resumed), weights(policy))
    assert other.n_updates == learner.n_updates == 12


@pytest.mark.parametrize("optimizer", ["adamw", "muon"])
def test_the_optimiser_state_matters(tmp_path, make_learner, optimizer):
    # Guards the test above: weights alone do not give the same next update.
    policy, learner = make_learner(optimizer)
    learner.update(batch(0), 0.0, seed=0)
    fresh_policy, fresh = make_learner(optimizer)
    fresh_policy.model.load_state_dict(policy.model.state_dict())
    for each in (learner, fresh):
        each.update(batch(1), 0.1, seed=1)
    assert not torch.equal(weights(policy), weights(fresh_policy))


def test_the_state_comes_back_as_it_was(tmp_path, make_learner):
    _, learner = make_learner()
    learner.update(batch(0), 0.0, seed=0)
    state = {"step": 7, "sampled_tokens": 12345, "history": [{"step": 0, "a": 0.1 + 0.2}, {"step": 1, "a": 1e-300}]}
    save_checkpoint(tmp_path / "deep" / "run", learner, state)
    assert load_checkpoint(tmp_path / "deep" / "run", make_learner()[1]) == state


def test_before_the_first_update(tmp_path, make_learner):
    policy, learner = make_learner()
    save_checkpoint(tmp_path / "run", learner, {"step": 0})
    other_policy, other = make_learner()
    with torch.no_grad():
        other_policy.model.get_input_embeddings().weight.zero_()
    assert load_checkpoint(tmp_path / "run", other) == {"step": 0}
    assert torch.equal(weights(other_policy), weights(policy))


def test_without_a_checkpoint_there_is_none_and_nothing_changes(tmp_path, make_learner):
    policy, learner = make_learner()
    before = weights(policy)
    assert load_checkpoint(tmp_path / "run", learner) is None
    assert torch.equal(weights(policy), before)
    assert list(tmp_path.iterdir()) == []


def test_a_new_checkpoint_replaces_the_last_one(tmp_path, make_learner):
    policy, learner = make_learner()
    for step in (1, 2, 3):
        learner.update(batch(step), 0.0, seed=0)
        save_checkpoint(tmp_path / "run", learner, {"step": step})
        assert [path.name for path in tmp_path.iterdir()] == ["run"]
    other_policy, other = make_learner()
    assert load_checkpoint(tmp_path / "run", other)["step"] == 3
    assert torch.equal(weights(other_policy), weights(policy))


def test_files_are_safetensors_and_json(tmp_path, make_learner):
    _, learner = make_learner("muon")
    learner.update(batch(0), 0.0, seed=0)
    save_checkpoint(tmp_path / "run", learner, {"step": 1})
    assert {path.suffix for path in (tmp_path / "run").iterdir()} == {".safetensors", ".json"}


@pytest.fixture
def two_saves(tmp_path, make_learner):
    """A folder with the checkpoint of step 1, and a learner that is at step 2."""
    policy, learner = make_learner()
    learner.update(batch(1), 0.0, seed=0)
    save_checkpoint(tmp_path / "run", learner, {"step": 1})
    saved = weights(policy)
    learner.update(batch(2), 0.0, seed=0)
    return tmp_path / "run", learner, saved


def test_killed_between_the_renames_the_old_checkpoint_is_found(two_saves, make_learner):
    folder, learner, saved = two_saves
    folder.rename(folder.with_name("run.old"))
    policy, other = make_learner()
    assert load_checkpoint(folder, other)["step"] == 1
    assert torch.equal(weights(policy), saved)
    save_checkpoint(folder, learner, {"step": 2})
    assert load_checkpoint(folder, other)["step"] == 2


def test_killed_while_writing_the_last_checkpoint_stays(two_saves, make_learner):
    folder, learner, saved = two_saves
    fresh = folder.with_name("run.new")
    fresh.mkdir()
    (fresh / "model.safetensors").write_bytes(b"half")
    policy, other = make_learner()
    assert load_checkpoint(folder, other)["step"] == 1
    assert torch.equal(weights(policy), saved)
    save_checkpoint(folder, learner, {"step": 2})
    assert load_checkpoint(folder, other)["step"] == 2
    assert [path.name for path in folder.parent.iterdir()] == ["run"]


def test_killed_between_the_renames_and_saved_again_at_once(two_saves, make_learner):
    # Without a load in between: the folder is missing, the old one is there.
    folder, learner, _ = two_saves
    folder.rename(folder.with_name("run.old"))
    save_checkpoint(folder, learner, {"step": 2})
    assert load_checkpoint(folder, make_learner()[1])["step"] == 2


def test_killed_while_removing_the_old_checkpoint_the_next_save_works(two_saves, make_learner):
    folder, learner, _ = two_saves
    old = folder.with_name("run.old")
    old.mkdir()
    (old / "model.safetensors").write_bytes(b"left over")
    assert load_checkpoint(folder, make_learner()[1])["step"] == 1
    save_checkpoint(folder, learner, {"step": 2})
    assert load_checkpoint(folder, make_learner()[1])["step"] == 2
