import numpy as np
import pytest

from mrt_pipeline.errors import InputError
from mrt_pipeline.policy.policy import load_tokenizer
from mrt_pipeline.policy.text_template import TextBacktrackTemplateParams

BACK = ["Backtrack to beginning\n", "Backtrack to Line <n>\n"]
STREAM = ["1: a\n2: b\n", "Backtrack to Line 2\n", "2: c\n", "Backtrack to beginning\n", "1: d so 7"]


@pytest.fixture
def tokenizer(language_model):
    return load_tokenizer(language_model, None, None)


@pytest.fixture
def template(tokenizer):
    return TextBacktrackTemplateParams(back=BACK).bind(tokenizer)


def encode(tokenizer, *texts):
    """Token ids of texts one after the other, and how many there are after each."""
    ids = [tokenizer.encode(text, add_special_tokens=False) for text in texts]
    return np.concatenate(ids), np.cumsum([len(part) for part in ids])


def test_an_episode_ends_where_the_sentence_that_goes_back_does(tokenizer, template):
    ids, ends = encode(tokenizer, *STREAM)
    assert template.boundaries(ids).tolist() == [0, ends[1], ends[3], ends[4]]
    assert template.boundaries(ids[:0]).tolist() == [0]


def test_an_answer_can_be_forced_only_at_the_start_and_after_going_back(tokenizer, template):
    ids, ends = encode(tokenizer, *STREAM)
    for cut in range(len(ids) + 1):
        expected = max(place for place in (0, ends[1], ends[3]) if place <= cut)
        assert template.snap(ids, cut) == expected


@pytest.mark.parametrize("stopped", [True, False])
def test_the_last_attempt_is_the_answer(tokenizer, template, stopped):
    ids, ends = encode(tokenizer, *STREAM)
    split = template.split(ids, template.eos_id if stopped else None)
    assert (split.n_thought, split.close, split.answered) == (ends[3], (), stopped)
    assert split.stop_reason == ("stop" if stopped else "length")


def test_an_answer_is_read_up_to_where_it_goes_back(template):
    assert template.answer_text("1: d so 7", ended=True, forced=False) == "1: d so 7"
    assert template.answer_text("1: d so 7", ended=False, forced=True) == ""
    assert template.answer_text("so 7\nBacktrack to Line 12\n3: e", ended=False, forced=True) == "so 7\n"
    assert template.answer_text("so 7\nBacktrack to Line <n>\n", ended=False, forced=True) == ""


def test_forcing_on_goes_back_to_the_start(tokenizer, template):
    assert [tokenizer.decode(ids) for ids in template.extensions] == BACK[:1]


def test_a_first_sentence_that_names_a_line_is_refused(tokenizer):
    with pytest.raises(InputError, match=r"policy\.template\.back"):
        TextBacktrackTemplateParams(back=BACK[::-1]).bind(tokenizer)


def test_what_follows_an_attempt_that_goes_back_is_dropped(tokenizer, template):
    ids, ends = encode(tokenizer, "so 7\n", BACK[0], "1: e\n", BACK[0])
    assert template.answer_length(ids) == ends[0] + 1
    assert template.answer_length(ids[: ends[0]]) == ends[0]
    assert template.answer_length(ids[:0]) == 0
