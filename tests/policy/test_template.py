import pytest

from mrt_pipeline.policy.template import ThinkTemplate, encode_prompt
from mrt_pipeline.policy.tokenizer import THINK_CLOSE, build_symbol_tokenizer


@pytest.fixture(scope="module")
def tokenizer():
    return build_symbol_tokenizer(["wait", "but", "time", "is", "up", "7"])


def ids(tokenizer, text):
    return tokenizer.encode(text, add_special_tokens=False)


def test_from_text(tokenizer):
    template = ThinkTemplate.from_text(tokenizer, THINK_CLOSE, f"time is up {THINK_CLOSE}", "but wait", ["wait", "but"])
    assert [template.close_id] == ids(tokenizer, THINK_CLOSE)
    assert template.eos_id == tokenizer.eos_token_id
    assert list(template.stop_phrase) == ids(tokenizer, f"time is up {THINK_CLOSE}")
    assert template.stop_phrase[-1] == template.close_id
    assert list(template.continuation) == ids(tokenizer, "but wait")
    assert template.marker_ids == set(ids(tokenizer, "wait but"))


@pytest.mark.parametrize(
    "wrong",
    [
        {"think_close": "time up"},
        {"episode_markers": ["wait", "but wait"]},
        {"stop_phrase": "hurry"},
        {"continuation": ""},
        {"episode_markers": ["elephant"]},
    ],
)
def test_strings_that_the_tokenizer_cannot_write_are_refused(tokenizer, wrong):
    right = {
        "think_close": THINK_CLOSE,
        "stop_phrase": THINK_CLOSE,
        "continuation": "wait",
        "episode_markers": ["wait"],
    }
    ThinkTemplate.from_text(tokenizer, **right)
    with pytest.raises(ValueError, match="tokenizer"):
        ThinkTemplate.from_text(tokenizer, **right | wrong)


def test_encode_prompt_is_bos_question_and_the_opening_of_the_thought(tokenizer):
    assert encode_prompt(tokenizer, "7 is up") == ids(tokenizer, "<bos> 7 is up <think>")
    assert encode_prompt(tokenizer, "7")[0] == tokenizer.bos_token_id


def test_every_question_of_the_task_is_known(tiny_policy, problems):
    for problem in problems:
        prompt = encode_prompt(tiny_policy.tokenizer, problem.question)
        assert len(prompt) == len(problem.question.split()) + 2
        assert tiny_policy.tokenizer.unk_token_id not in prompt
