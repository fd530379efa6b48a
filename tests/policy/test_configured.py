import json
import logging

import numpy as np
import pytest
import torch

from mrt_pipeline.errors import InputError
from mrt_pipeline.policy.configured import LanguageModelPolicy, folder_content, open_policy
from mrt_pipeline.policy.language_model import LoRAParams, add_adapters
from mrt_pipeline.policy.policy import CARD, SavedPolicy
from mrt_pipeline.trainer.warm_start import TinyPolicy

WORDS = {"kind": "think", "family": None, "suffix": "", "opening": "", "close": "####", "stop_phrase": "####"}


def configured(path, **how):
    given = {"max_length": 64, "dtype": "float32", "template": WORDS, "gradient_checkpointing": False, **how}
    return LanguageModelPolicy(path=str(path), **given)


@pytest.fixture
def adapters(tmp_path, language_model):
    """A folder of LoRA adapters, as any other program leaves it, that change what the model says."""
    policy = configured(language_model).saved(language_model).open()
    model = add_adapters(policy.model, rank=4, alpha=8, dropout=0.0, seed=0)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if "lora_B" in name:
                parameter.add_(0.3)
    model.save_pretrained(tmp_path / "adapters")
    return tmp_path / "adapters"


def logits(policy):
    with torch.no_grad():
        return policy.model(input_ids=torch.arange(8)[None]).logits


def test_adapters_are_opened_on_their_model_and_trained_on(adapters, language_model):
    saved = configured(adapters).saved(str(adapters))
    assert saved.has_adapters and saved.start == language_model
    plain = configured(language_model).saved(language_model)
    assert not plain.has_adapters and not torch.allclose(logits(saved.open()), logits(plain.open()), atol=1e-3)
    trained = saved.open_to_train(seed=0)
    assert torch.allclose(logits(trained), logits(saved.open_apart()), atol=1e-5)
    assert {name.split(".")[-3] for name, p in trained.model.named_parameters() if p.requires_grad} <= {
        "lora_A",
        "lora_B",
    }


def test_all_weights_cannot_be_trained_through_adapters(adapters):
    with pytest.raises(InputError, match=r"policy\.lora=null trains all weights, but .*adapters holds LoRA adapters"):
        configured(adapters, lora=None).saved(str(adapters))


def test_the_content_of_a_folder_is_told_apart_and_a_cards_name_and_key_are_not(tmp_path, tiny_policy):
    folder = tmp_path / "policy"
    tiny_policy.save(folder)
    before = folder_content(str(folder))
    card = SavedPolicy.read(folder).card
    for name, key in (("trained", "x"), ("base", "y")):
        (folder / CARD).write_text(card.model_copy(update={"name": name, "key": key}).model_dump_json())
        assert folder_content(str(folder)) == before
    (folder / CARD).write_text(card.model_copy(update={"max_length": 99}).model_dump_json())
    assert folder_content(str(folder)) != before
    (folder / CARD).write_bytes(b"\xff{")  # damaged: said in words when it is opened
    assert any(entry[0] == CARD for entry in folder_content(str(folder)))
    with pytest.raises(InputError, match="is not the card of a policy"):
        SavedPolicy.read(folder)
    assert folder_content("an/id-on-the-hub") == folder_content("models:/toy/1") == []
    assert "content" in TinyPolicy(path=str(folder)).deciding() and "content" not in TinyPolicy().deciding()


def test_the_model_below_adapters_counts_as_their_content(adapters, tmp_path, language_model):
    config = json.loads((adapters / "adapter_config.json").read_text())
    alone = folder_content(str(adapters))
    config["base_model_name_or_path"] = "an/id-on-the-hub"
    (adapters / "adapter_config.json").write_text(json.dumps(config))
    assert len(folder_content(str(adapters))) < len(alone)


def test_any_model_is_opened_by_its_folder(language_model):
    policy = open_policy(language_model, template=WORDS, dtype="float32", max_length=64)
    assert policy.tokenizer.decode(policy.template.close).startswith("####")
    assert np.isfinite(logits(policy).numpy()).all()


def test_adapters_keep_their_rank_and_it_is_said(adapters, caplog):
    from mrt_pipeline.pipelines.base_policy.nodes import make_base_policy

    policy = configured(adapters, lora=LoRAParams(rank=16, alpha=32, dropout=0.0))
    with caplog.at_level(logging.WARNING):
        make_base_policy(None, None, policy)
    assert "keep their rank of 4" in caplog.text
