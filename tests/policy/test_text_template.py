from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from mrt_pipeline.errors import InputError
from mrt_pipeline.policy.policy import load_tokenizer
from mrt_pipeline.policy.template import encode_prompt
from mrt_pipeline.policy.text_template import FixedLength, LowProbability, Paragraphs, TextTemplateParams

PARAGRAPHS = Paragraphs(markers=("Wait",), min_paragraphs=1)
DROPPING = Paragraphs(markers=("Wait",), min_paragraphs=1, drop_unfinished=True)
STRINGS = {
    "family": None,
    "suffix": "",
    "opening": "",
    "close": "####",
    "stop_phrase": "\nTime is up.\n####",
    "answer_opening": " \\boxed{",
    "answer_end": "}",
    "extensions": ["Wait, ", "Hold on, "],
}


def bind(tokenizer, segmentation, **changes):
    return TextTemplateParams(segmentation=segmentation, **STRINGS | changes).bind(tokenizer)


@pytest.fixture
def tokenizer(language_model):
    return load_tokenizer(language_model, None, None)


@pytest.fixture
def template(tokenizer):
    return bind(tokenizer, PARAGRAPHS)


def test_strings_become_tokens(tokenizer, template):
    assert tokenizer.decode(template.close) == "#### \\boxed{"
    assert tokenizer.decode(template.stop_phrase) == "\nTime is up.\n#### \\boxed{"
    assert tokenizer.decode(template.answer_end) == "}"
    assert [tokenizer.decode(ids) for ids in template.extensions] == ["Wait, ", "Hold on, "]
    assert template.thinking_stops == (*template.close_ids, tokenizer.eos_token_id)
    no_end = bind(tokenizer, FixedLength(every=4), answer_end="")
    assert no_end.answer_end == (tokenizer.eos_token_id,)


@pytest.mark.parametrize(
    ("wrong", "named"),
    [
        ({"close": "two tokens"}, ["policy.template.close", "two tokens", "####"]),
        ({"stop_phrase": "\nTime is up."}, ["stop_phrase", "####"]),
    ],
)
def test_strings_that_do_not_fit_are_refused_in_words(tokenizer, wrong, named):
    with pytest.raises(InputError) as error:
        bind(tokenizer, FixedLength(every=4), **wrong)
    for part in named:
        assert part in str(error.value)


def test_a_tokenizer_without_chat_template_is_refused_and_can_be_given_one(language_model, tokenizer):
    template, tokenizer.chat_template = tokenizer.chat_template, None
    with pytest.raises(InputError, match=r"policy\.template\.chat_template"):
        bind(tokenizer, FixedLength(every=4))
    given = load_tokenizer(language_model, None, "{{ messages[0]['content'] }}:")
    assert given.decode(encode_prompt(given, bind(given, FixedLength(every=4)), "7?")) == "7?:"
    assert template


def test_the_prompt_holds_examples_suffix_and_opening(tokenizer):
    example = {"question": "1 + 1?", "thought": "1 + 1 = 2\n", "answer": " 2"}
    template = bind(
        tokenizer, FixedLength(every=4), examples=[example], suffix=" Think.", opening="<think>\n", system="S"
    )
    assert tokenizer.decode(encode_prompt(tokenizer, template, "45 - 8?")) == (
        "<|im_start|>system\nS<|im_end|>\n"
        "<|im_start|>user\n1 + 1? Think.<|im_end|>\n<|im_start|>assistant\n<think>\n1 + 1 = 2\n#### 2<|im_end|>\n"
        "<|im_start|>user\n45 - 8? Think.<|im_end|>\n<|im_start|>assistant\n<think>\n"
    )


def test_episodes_of_a_text_are_found_at_token_boundaries(tokenizer, template):
    text = "12 + 7 = 19\n\nWait, 19 - 30 = -11 né\n\nso 4\n\nWait again"
    ids = tokenizer.encode(text)
    boundaries = template.boundaries(ids, np.zeros(len(ids)))
    parts = [tokenizer.decode(ids[a:b]) for a, b in pairwise(boundaries)]
    assert parts == ["12 + 7 = 19\n\n", "Wait, 19 - 30 = -11 né\n\nso 4\n\n", "Wait again"]
    fixed = bind(tokenizer, FixedLength(every=5))
    assert fixed.boundaries(ids, np.zeros(len(ids)))[:3].tolist() == [0, 5, 10]
    unsure = bind(tokenizer, LowProbability(threshold=0.5, cuts_per_episode=1))
    logprobs = np.where(np.arange(len(ids)) % 4 == 3, -2.0, -0.1)
    assert unsure.boundaries(ids, logprobs)[:3].tolist() == [0, 7, 11]


def test_the_stream_is_split_where_the_model_closes_its_thought(template):
    thought = [50, 51, 52]
    assert template.split(thought, template.close_ids[0]).close == template.close
    assert template.split(thought, template.close_ids[0]).stop_reason == "stop"
    cut = template.split(thought, None)
    assert (cut.close, cut.stop_reason, cut.answered) == (template.stop_phrase, "length", False)
    assert template.split(thought, template.eos_id).answered


@pytest.mark.parametrize(
    ("text", "ended", "forced", "read"),
    [
        ("12}", True, False, " \\boxed{12}"),
        ("12}", True, True, " \\boxed{12}"),
        ("12} and th", False, True, " \\boxed{12} and "),
        ("12} and th", False, False, " \\boxed{12} and "),
        ("60}", False, True, " \\boxed{60}"),
    ],
)
def test_an_answer_that_was_cut_loses_its_last_word(template, text, ended, forced, read):
    assert template.answer_text(text, ended, forced) == read


@pytest.fixture
def dropping(tokenizer):
    return bind(tokenizer, DROPPING)


def test_a_cut_drops_the_paragraph_that_it_is_in_unless_that_is_the_first(tokenizer, dropping):
    parts = ["\n\n12 + 7 = 19\n\n", "19 - 30 = -11\n", "so 4\n\n", "Wait agai"]
    ends = np.cumsum([len(tokenizer.encode(part)) for part in parts])
    ids = [token for part in parts for token in tokenizer.encode(part)]
    for cut in range(len(ids) + 1):
        places = [place for place in (ends[0], ends[2]) if place <= cut]
        assert dropping.snap(ids, cut) == (places[-1] if places else cut)
    assert tokenizer.decode(ids[: dropping.snap(ids, len(ids))]).endswith("so 4\n\n")
    assert dropping.snap(ids, len(ids), (len(ids),)) == len(ids)  # it stopped there by itself
    assert dropping.snap(ids, len(ids) - 1, (len(ids),)) == ends[2]
    assert dropping.split(ids, None).n_thought == ends[2]
    assert dropping.split(ids, dropping.close_ids[0]).n_thought == len(ids)


PIECES = st.lists(st.sampled_from(["a", "Wait", "\n", "\n\n", ".\n\n", "\n\n\n", " "]), max_size=14)


@pytest.fixture(scope="module")
def cutting(language_model):
    tokenizer = load_tokenizer(language_model, None, None)
    return bind(tokenizer, DROPPING)


@given(PIECES, st.data())
def test_cutting_is_idempotent_monotone_and_never_adds(cutting, pieces, data):
    template, ids = cutting, cutting.tokenizer.encode("".join(pieces))
    stops = data.draw(st.lists(st.integers(0, len(ids)), max_size=2))
    snapped = [template.snap(ids, cut, stops) for cut in range(len(ids) + 1)]
    assert all(place <= cut for cut, place in enumerate(snapped))
    assert snapped == sorted(snapped)
    assert [snapped[place] for place in snapped] == snapped
    assert all(snapped[place] == place for place in stops)
    boundaries = template.boundaries(ids, np.zeros(len(ids)))[:-1]
    assert all(template.snap(ids, place) == place for place in boundaries)  # J is asked for there in any case


def test_no_other_segmentation_drops_anything(tokenizer):
    ids = tokenizer.encode("a\n\nb")
    for segmentation in (FixedLength(every=2), LowProbability(threshold=0.5, cuts_per_episode=1), PARAGRAPHS):
        template = bind(tokenizer, segmentation)
        assert [template.snap(ids, cut) for cut in range(len(ids) + 1)] == list(range(len(ids) + 1))
