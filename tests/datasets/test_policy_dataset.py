import fsspec
import pytest
import torch
from kedro.io.core import DatasetError, Version

from mrt_pipeline.datasets.policy_dataset import PolicyDataset
from mrt_pipeline.errors import InputError
from mrt_pipeline.policy.configured import LanguageModelPolicy
from mrt_pipeline.policy.policy import CARD, PolicyCard, SavedPolicy


def weights(policy):
    return torch.cat([p.detach().flatten() for p in policy.model.parameters()])


@pytest.fixture
def elsewhere():
    """A file system that is not the local one."""
    yield "memory://policies/best"
    fsspec.filesystem("memory").store.clear()


def test_a_policy_comes_back_with_weights_tokenizer_template_and_card(tmp_path, tiny_policy):
    dataset = PolicyDataset(filepath=str(tmp_path / "models" / "policy"))
    assert not dataset.exists()
    dataset.save(tiny_policy)
    assert dataset.exists()
    saved = dataset.load()
    assert saved.card == tiny_policy.card and saved.template == tiny_policy.template
    assert torch.equal(weights(saved.open()), weights(tiny_policy))
    assert {path.suffix for path in (tmp_path / "models" / "policy").iterdir()} <= {".safetensors", ".json", ".jinja"}


def test_it_is_opened_once_and_anew_after_it_was_saved_again(tmp_path, tiny_policy, make_policy):
    dataset = PolicyDataset(filepath=str(tmp_path / "policy"))
    dataset.save(tiny_policy)
    assert dataset.load().open() is dataset.load().open()
    dataset.save(make_policy(seed=3))
    assert not torch.equal(weights(dataset.load().open()), weights(tiny_policy))
    dataset.save(SavedPolicy.read(tmp_path / "policy").called(name="base", key="abc"))  # onto itself
    assert dataset.load().card.key == "abc"


def test_it_may_be_anywhere(elsewhere, tiny_policy):
    dataset = PolicyDataset(filepath=elsewhere)
    dataset.save(tiny_policy)
    assert torch.equal(weights(PolicyDataset(filepath=elsewhere).load().open()), weights(tiny_policy))
    assert (dataset.local_copy() / CARD).is_file()


def test_versions_stay_beside_each_other(tmp_path, tiny_policy, make_policy):
    def at(load=None, save=None):
        return PolicyDataset(filepath=str(tmp_path / "policy"), version=Version(load, save))

    other = make_policy(seed=3)
    at(save="2026-01-01").save(tiny_policy)
    at(save="2026-01-02").save(other)
    assert torch.equal(weights(at().load().open()), weights(other))
    assert torch.equal(weights(at(load="2026-01-01").load().open()), weights(tiny_policy))


def test_a_model_that_is_used_as_it_is_costs_a_card(tmp_path, language_model):
    saved = LanguageModelPolicy(path=language_model, max_length=64, template={"kind": "backtrack"}).saved(
        language_model
    )
    dataset = PolicyDataset(filepath=str(tmp_path / "policy"))
    dataset.save(saved)
    assert [path.name for path in (tmp_path / "policy").iterdir()] == [CARD]
    assert dataset.load().start == language_model
    assert dataset.load().open().model.num_parameters() > 0


@pytest.mark.parametrize("content", [None, "{}", "nonsense"])
def test_a_folder_that_holds_no_policy_is_refused_in_words(tmp_path, content):
    folder = tmp_path / "policy"
    folder.mkdir()
    if content:
        (folder / CARD).write_text(content)
    with pytest.raises((InputError, DatasetError), match=CARD):
        PolicyDataset(filepath=str(folder)).load()


def test_the_card_says_how_it_thinks(tiny_policy):
    again = PolicyCard.model_validate_json(tiny_policy.card.model_dump_json())
    assert again.template.bind(tiny_policy.tokenizer) == tiny_policy.template
