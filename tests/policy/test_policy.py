import pytest
import torch

from mrt_pipeline.errors import InputError
from mrt_pipeline.policy.configured import LanguageModelPolicy
from mrt_pipeline.policy.policy import CARD, LoRAParams, SavedPolicy
from mrt_pipeline.policy.template import encode_prompt
from mrt_pipeline.policy.text_template import TextTemplateParams
from mrt_pipeline.tasks.countdown import EPISODE_MARKER


def weights(policy):
    return torch.cat([p.detach().flatten() for p in policy.model.parameters()])


def test_the_seed_makes_the_weights_and_leaves_the_global_generator_alone(make_policy):
    torch.manual_seed(5)
    expected = torch.rand(3)
    torch.manual_seed(5)
    first, again, other = make_policy(seed=0), make_policy(seed=0), make_policy(seed=1)
    assert torch.equal(torch.rand(3), expected)
    assert torch.equal(weights(first), weights(again))
    assert not torch.equal(weights(first), weights(other))


def test_embeddings_are_tied(tiny_policy):
    vocabulary, width, inner = len(tiny_policy.tokenizer), 32, 64
    layer = 4 * width * width + 3 * width * inner + 2 * width
    assert tiny_policy.model.num_parameters() == vocabulary * width + 2 * layer + width


def test_the_template_fits_the_tokenizer(tiny_policy):
    tokenizer, template = tiny_policy.tokenizer, tiny_policy.template
    assert tokenizer.convert_ids_to_tokens(template.close_ids[0]) == "</think>"
    assert template.stop_phrase == (template.close_ids[0],)
    assert template.marker_ids == {tokenizer.convert_tokens_to_ids(EPISODE_MARKER)} == set(template.extensions[0])
    assert template.eos_id == tokenizer.eos_token_id == tiny_policy.model.config.eos_token_id


def test_a_saved_policy_comes_back_the_same(tmp_path, warm_policy, problems, all_logprobs):
    warm_policy.save(tmp_path / "policy")
    saved = SavedPolicy.read(tmp_path / "policy")
    assert saved.card == warm_policy.card and saved.start == str(tmp_path / "policy")
    loaded = saved.open()
    assert loaded.card == warm_policy.card
    assert loaded.template == saved.template == warm_policy.template
    assert torch.equal(weights(loaded), weights(warm_policy))
    assert next(loaded.model.parameters()).dtype is torch.float32
    for problem in problems[:3]:
        prompt = encode_prompt(warm_policy.tokenizer, warm_policy.template, problem.question)
        assert encode_prompt(loaded.tokenizer, loaded.template, problem.question) == prompt
        assert (all_logprobs(loaded.model.eval(), prompt) == all_logprobs(warm_policy.model, prompt)).all()
        answer = loaded.tokenizer.encode(problem.answers[0], add_special_tokens=False)
        assert loaded.tokenizer.decode(answer, skip_special_tokens=True) == problem.answers[0]


def test_weights_are_saved_as_safetensors_only(tmp_path, tiny_policy):
    tiny_policy.save(tmp_path)
    names = {path.suffix for path in tmp_path.rglob("*") if path.is_file()}
    assert ".safetensors" in names
    assert names <= {".safetensors", ".json", ".jinja"}


def test_a_saved_policy_is_opened_once_and_trained_as_a_copy(tmp_path, tiny_policy):
    tiny_policy.save(tmp_path)
    saved = SavedPolicy.read(tmp_path)
    opened = saved.open()
    assert saved.open() is opened and not opened.model.training
    trained, apart = saved.open_to_train(seed=0), saved.open_apart()
    assert trained.card == opened.card and trained.template == opened.template
    assert all(parameter.requires_grad for parameter in trained.model.parameters())
    with torch.no_grad():
        for parameter in trained.model.parameters():
            parameter.zero_()
    for policy in (opened, apart, saved.open()):  # opened anew, as it was let go of for the training
        assert torch.equal(weights(policy), weights(tiny_policy))
    assert saved.open() is not opened


def test_a_saved_policy_can_have_another_card(tmp_path, tiny_policy):
    tiny_policy.save(tmp_path)
    saved = SavedPolicy.read(tmp_path)
    called = saved.called(name="trained", key="abc")
    assert (called.card.name, called.card.key, called.open().card) == ("trained", "abc", called.card)
    assert saved.card == tiny_policy.card and called.folder == saved.folder


def test_a_folder_that_holds_no_policy_is_refused_in_words(tmp_path, tiny_policy):
    tiny_policy.model.save_pretrained(tmp_path)
    with pytest.raises(InputError, match=f"{tmp_path} holds no policy: it has no {CARD}"):
        SavedPolicy.read(tmp_path)
    (tmp_path / CARD).write_text('{"max_length": 0}')
    with pytest.raises(InputError, match=f"{CARD} is not the card of a policy"):
        SavedPolicy.read(tmp_path)


@pytest.fixture
def adapted(language_model):
    """A language model to be trained with LoRA adapters, which a training has moved already."""
    template = TextTemplateParams(family=None, suffix="", opening="", close="####", stop_phrase="#### ")
    lora = LoRAParams(rank=4, alpha=8, dropout=0.0)
    configured = LanguageModelPolicy(path=language_model, dtype="float32", lora=lora, template=template)
    policy = configured.saved(language_model).open_to_train(seed=1)
    with torch.no_grad():
        for name, parameter in policy.model.named_parameters():
            if "lora_B" in name:
                parameter.normal_(generator=torch.Generator().manual_seed(3))
    return policy


def logits(policy):
    with torch.no_grad():
        return policy.model.eval()(torch.tensor([[5, 9, 30, 31, 8]])).logits


def trainable(policy):
    return {name: parameter for name, parameter in policy.model.named_parameters() if parameter.requires_grad}


def test_adapters_come_back_on_their_base_and_are_trained_on(tmp_path, adapted, language_model):
    adapted.save(tmp_path)
    assert not (tmp_path / "model.safetensors").exists()
    saved = SavedPolicy.read(tmp_path)
    assert saved.card == adapted.card
    assert saved.start == saved.card.base == language_model  # which an engine begins with
    assert saved.template.close_ids == adapted.template.close_ids
    opened = saved.open()
    torch.testing.assert_close(logits(opened), logits(adapted))
    with opened.model.disable_adapter():
        assert not torch.allclose(logits(opened), logits(adapted), atol=1e-3)
    again, before = trainable(saved.open_to_train(seed=2)), trainable(adapted)
    assert again.keys() == before.keys() and all("lora_" in name for name in again)
    assert all(torch.equal(again[name], parameter) for name, parameter in before.items())
