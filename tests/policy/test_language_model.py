import shutil
from pathlib import Path

import pytest
import torch

from mrt_pipeline.errors import InputError
from mrt_pipeline.policy.configured import LanguageModelPolicy, locate, unpack_gguf
from mrt_pipeline.policy.policy import Policy, add_adapters, load_language_model, load_tokenizer

IDS = torch.tensor([[5, 9, 30, 31, 8]])


@pytest.fixture
def model(language_model):
    return load_language_model(language_model, None, "float32")


def test_fresh_adapters_change_nothing_and_are_all_that_is_trained(model):
    with torch.no_grad():
        before = model(IDS).logits
        adapted = add_adapters(model, rank=4, alpha=8, dropout=0.0, seed=1)
        assert torch.equal(adapted(IDS).logits, before)
    trainable = [name for name, p in adapted.named_parameters() if p.requires_grad]
    assert trainable and all("lora_" in name for name in trainable)
    assert not any("lm_head" in name or "embed" in name for name in trainable)


def test_adapters_are_saved_alone_and_come_back(model, language_model, tmp_path):
    adapted = add_adapters(model, rank=4, alpha=8, dropout=0.0, seed=1)
    with torch.no_grad():
        for name, parameter in adapted.named_parameters():
            if "lora_B" in name:
                parameter.normal_(generator=torch.Generator().manual_seed(3))
        expected = adapted(IDS).logits
    Policy(adapted, load_tokenizer(language_model, None, None), None).save(tmp_path)
    assert (tmp_path / "adapter_model.safetensors").exists() and not (tmp_path / "model.safetensors").exists()
    loaded = load_language_model(language_model, None, "float32", str(tmp_path))
    with torch.no_grad():
        torch.testing.assert_close(loaded(IDS).logits, expected)
        with loaded.disable_adapter():
            assert torch.equal(loaded(IDS).logits, load_language_model(language_model, None, "float32")(IDS).logits)


def test_fully_trained_weights_come_back(model, language_model, tmp_path):
    with torch.no_grad():
        model.model.norm.weight.mul_(2)
        expected = model(IDS).logits
    Policy(model, load_tokenizer(language_model, None, None), None).save(tmp_path)
    loaded = load_language_model(str(tmp_path), None, "float32")
    with torch.no_grad():
        torch.testing.assert_close(loaded(IDS).logits, expected)


def test_the_context_is_read_from_the_configuration(language_model):
    saved = LanguageModelPolicy(path=language_model).saved(language_model)
    assert saved.context_length == 512


def test_a_package_stands_for_its_folder():
    assert Path(locate("package:peft"), "__init__.py").exists()
    with pytest.raises(InputError, match="pip install no_such_package"):
        locate("package:no_such_package")


@pytest.mark.parametrize("path", ["/no/such/folder", "no-such-owner/no-such-model"])
def test_a_model_that_is_not_there_is_refused_in_words(path, monkeypatch):
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    for load in (lambda: load_tokenizer(path, None, None), lambda: load_language_model(path, None, "float32")):
        with pytest.raises(InputError, match=r"policy\.path"):
            load()


def test_weights_that_are_pickles_are_refused(language_model, tmp_path):
    folder = tmp_path / "pickled"
    shutil.copytree(language_model, folder)
    (folder / "model.safetensors").unlink()
    torch.save({}, folder / "pytorch_model.bin")
    with pytest.raises(InputError, match="safetensors"):
        load_language_model(str(folder), None, "float32")


def test_a_missing_gguf_file_is_refused(tmp_path):
    with pytest.raises(InputError, match=r"policy\.gguf_file"):
        unpack_gguf(str(tmp_path), "weights.gguf", "float32", tmp_path / "out")
