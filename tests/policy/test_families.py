import pytest

from mrt_pipeline.errors import InputError
from mrt_pipeline.policy.policy import load_tokenizer
from mrt_pipeline.policy.text_template import OPENINGS, find_family

# The ends of two generation prompts, as Qwen3's hybrid and its thinking models write them.
HYBRID = (
    "{{ messages[0]['content'] }}<|im_end|>{% if add_generation_prompt %}<|im_start|>assistant\n"
    "{% if enable_thinking is defined and enable_thinking is false %}<think>\n\n</think>\n\n{% endif %}{% endif %}"
)
THINKING = (
    "{{ messages[0]['content'] }}<|im_end|>{% if add_generation_prompt %}<|im_start|>assistant\n<think>\n{% endif %}"
)


@pytest.fixture
def tokenizer(language_model):
    def load(template):
        return load_tokenizer(language_model, None, template)

    return load


@pytest.mark.parametrize(("template", "name"), [(HYBRID, "qwen3"), (THINKING, "r1"), (None, "think")])
def test_the_family_is_found_from_the_chat_template(tokenizer, template, name):
    assert find_family(tokenizer(template)) == name


def test_r1_is_found_by_its_own_template(reasoner):
    assert find_family(load_tokenizer(reasoner, None, None)) == "r1"


@pytest.mark.parametrize(("template", "name"), [(HYBRID, "think"), (None, "qwen3"), (THINKING, "r1")])
def test_a_family_can_be_chosen_that_opens_its_thought_as_the_template_does(tokenizer, template, name):
    assert find_family(tokenizer(template), name) == name


@pytest.mark.parametrize(
    ("template", "name", "does"), [(THINKING, "qwen3", "opens the thought itself"), (HYBRID, "r1", "does not open")]
)
def test_a_family_that_would_open_the_thought_twice_or_never_is_refused(tokenizer, template, name, does):
    with pytest.raises(InputError, match=does):
        find_family(tokenizer(template), name)


def test_every_thought_begins_after_one_opening(tokenizer):
    for template in (HYBRID, THINKING, None):
        loaded = tokenizer(template)
        asked = [{"role": "user", "content": "?"}]
        prompt = loaded.apply_chat_template(asked, tokenize=False, add_generation_prompt=True)
        assert (prompt + OPENINGS[find_family(loaded)]).endswith("<think>\n")
        assert (prompt + OPENINGS[find_family(loaded)]).count("<think>") == 1
