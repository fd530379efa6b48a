import pytest

from mrt_pipeline.policy.template import THINK_CLOSE, THINK_OPEN, build_symbol_tokenizer

SYMBOLS = ["wait", "(7", "3)", "=4", "-"]


def test_every_symbol_is_one_token_and_text_comes_back():
    tokenizer = build_symbol_tokenizer(SYMBOLS)
    ids = tokenizer.encode(" ".join(SYMBOLS), add_special_tokens=False)
    assert len(ids) == len(set(ids)) == len(SYMBOLS)
    assert tokenizer.unk_token_id not in ids
    assert tokenizer.decode(ids) == "wait (7 3) =4 -"


def test_special_tokens_and_think_tags_have_their_own_ids():
    tokenizer = build_symbol_tokenizer(SYMBOLS)
    special = [
        tokenizer.pad_token_id,
        tokenizer.bos_token_id,
        tokenizer.eos_token_id,
        tokenizer.unk_token_id,
        *tokenizer.encode(f"{THINK_OPEN} {THINK_CLOSE}", add_special_tokens=False),
    ]
    assert len(special) == len(set(special)) == 6
    assert len(tokenizer) == 6 + len(SYMBOLS)


def test_an_unknown_symbol_becomes_unk():
    tokenizer = build_symbol_tokenizer(SYMBOLS)
    assert tokenizer.encode("wait elephant", add_special_tokens=False)[1] == tokenizer.unk_token_id


def test_the_chat_template_opens_a_thought():
    tokenizer = build_symbol_tokenizer(SYMBOLS)
    messages = [{"role": "user", "content": "wait -"}]
    assert tokenizer.apply_chat_template(messages, tokenize=False, add_generation_prompt=True) == "<bos> wait - <think>"
    assert tokenizer.apply_chat_template(messages, tokenize=False) == "<bos> wait -"


@pytest.mark.parametrize("symbols", [["a", "a"], ["<eos>"], [THINK_CLOSE]])
def test_repeated_symbols_are_refused(symbols):
    with pytest.raises(ValueError, match="distinct"):
        build_symbol_tokenizer(symbols)
