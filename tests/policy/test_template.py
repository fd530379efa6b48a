import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from mrt_pipeline.policy.template import (
    THINK_CLOSE,
    BacktrackTemplate,
    SymbolBacktrackParams,
    SymbolThinkParams,
    build_symbol_tokenizer,
    encode_prompt,
)


@pytest.fixture(scope="module")
def tokenizer():
    return build_symbol_tokenizer(["wait", "but", "time", "is", "up", "7"])


def ids(tokenizer, text):
    return tokenizer.encode(text, add_special_tokens=False)


def think(tokenizer, **changes):
    words = {"close": THINK_CLOSE, "stop_phrase": THINK_CLOSE, "extensions": ["wait"], "markers": ["wait"]}
    return SymbolThinkParams(**words | changes).bind(tokenizer)


def test_words_become_tokens(tokenizer):
    words = {"stop_phrase": f"time is up {THINK_CLOSE}", "extensions": ["but wait"], "markers": ["wait", "but"]}
    template = think(tokenizer, **words)
    assert [template.close_ids[0]] == ids(tokenizer, THINK_CLOSE)
    assert template.eos_id == tokenizer.eos_token_id
    assert list(template.stop_phrase) == ids(tokenizer, f"time is up {THINK_CLOSE}")
    assert template.stop_phrase[-1] == template.close_ids[0]
    assert list(map(list, template.extensions)) == [ids(tokenizer, "but wait")]
    assert template.marker_ids == set(ids(tokenizer, "wait but"))


@pytest.mark.parametrize(
    "wrong",
    [
        {"close": "time up"},
        {"markers": ["wait", "but wait"]},
        {"stop_phrase": "hurry"},
        {"extensions": [""]},
        {"markers": ["elephant"]},
    ],
)
def test_strings_that_the_tokenizer_cannot_write_are_refused(tokenizer, wrong):
    think(tokenizer)
    with pytest.raises(ValueError, match="tokenizer"):
        think(tokenizer, **wrong)


def test_encode_prompt_is_bos_question_and_the_opening_of_the_thought(tokenizer):
    template = think(tokenizer)
    assert encode_prompt(tokenizer, template, "7 is up") == ids(tokenizer, "<bos> 7 is up <think>")
    assert encode_prompt(tokenizer, template, "7")[0] == tokenizer.bos_token_id


def test_every_question_of_the_task_is_known(tiny_policy, problems):
    for problem in problems:
        prompt = encode_prompt(tiny_policy.tokenizer, tiny_policy.template, problem.question)
        assert len(prompt) == len(problem.question.split()) + 2
        assert tiny_policy.tokenizer.unk_token_id not in prompt


streams = st.lists(st.integers(3, 8), max_size=12)


def test_back_symbols_must_be_tokens():
    tokenizer = build_symbol_tokenizer(["back0", "back1"], [":"])
    template = SymbolBacktrackParams(back=["back0", "back1"]).bind(tokenizer)
    assert list(template.back_ids) == ids(tokenizer, "back0 back1")
    assert template.extensions == (template.back_ids[:1],)
    assert template.thinking_stops == (tokenizer.eos_token_id,)
    assert set(template.answer_stops) == {tokenizer.eos_token_id, *template.back_ids}
    for wrong in ([], ["back2"], ["back0 back1"]):
        with pytest.raises(ValueError, match=r"tokenizer|back\n.* at least 1 item"):
            SymbolBacktrackParams(back=wrong).bind(tokenizer)


@given(streams, st.data())
def test_a_cut_is_snapped_to_the_last_back_symbol_before_it(stream, data):
    template = BacktrackTemplate(eos_id=2, back_ids=(7, 8))
    cut = data.draw(st.integers(0, len(stream)))
    snapped = template.snap(np.array(stream), cut)
    assert 0 <= snapped <= cut
    assert snapped == 0 or stream[snapped - 1] in (7, 8)
    assert not set(stream[snapped:cut]) & {7, 8}
    assert template.snap(stream, snapped) == snapped


@given(streams)
def test_a_back_symbol_is_the_last_of_its_episode(stream):
    boundaries = BacktrackTemplate(eos_id=2, back_ids=(7, 8)).boundaries(np.array(stream, dtype=np.int64))
    closed = {i + 1 for i, token in enumerate(stream) if token in (7, 8)}
    assert boundaries.dtype == np.int64 and boundaries.tolist() == sorted({0, len(stream)} | closed)


@given(streams, st.booleans())
def test_a_stream_is_its_thought_and_the_last_attempt(stream, stopped):
    template = BacktrackTemplate(eos_id=2, back_ids=(7, 8))
    split = template.split(stream, 2 if stopped else None)
    assert split.n_thought == template.snap(stream, len(stream)) == template.boundaries(stream[: split.n_thought])[-1]
    assert (split.close, split.answered, split.stop_reason) == ((), stopped, "stop" if stopped else "length")


@given(streams)
def test_boundaries_are_the_places_where_an_answer_can_be_forced(stream):
    template = BacktrackTemplate(eos_id=2, back_ids=(7, 8))
    thought = stream[: template.snap(stream, len(stream))]
    assert template.boundaries(thought).tolist() == sorted({template.snap(thought, i) for i in range(len(thought) + 1)})


def test_a_thought_can_be_stopped_anywhere_between_think_tags(tokenizer):
    template = think(tokenizer, stop_phrase=f"time {THINK_CLOSE}")
    assert [template.snap([7, 8, 9], cut) for cut in range(4)] == [0, 1, 2, 3]
    for stop, close, reason, answered in (
        (None, template.stop_phrase, "length", False),
        (template.close_ids[0], (template.close_ids[0],), "stop", False),
        (template.eos_id, (), "eos", True),
    ):
        split = template.split([7, 8, 9], stop)
        assert (split.n_thought, split.close, split.stop_reason, split.answered) == (3, close, reason, answered)
