"""A symbol-level tokenizer for policies made from scratch."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerFast

THINK_OPEN, THINK_CLOSE = "<think>", "</think>"
_SPECIAL = ["<pad>", "<bos>", "<eos>", "<unk>"]
# The question, then the opening of the thought: what a chat template of a reasoning model renders.
_CHAT_TEMPLATE = (
    "{{ bos_token }}{% for message in messages %} {{ message['content'] }}{% endfor %}"
    "{% if add_generation_prompt %} OPENING{% endif %}"
)


def build_symbol_tokenizer(
    symbols: Sequence[str], markers: Sequence[str] = (THINK_OPEN, THINK_CLOSE)
) -> PreTrainedTokenizerFast:
    """A tokenizer with one id for each whitespace-separated symbol, with a chat template that opens a thought.

    symbols: distinct, without white space. The special tokens are added.
    markers: symbols around a thought, added as well; the chat template ends with the first one.
    """
    from tokenizers import Tokenizer
    from tokenizers.models import WordLevel
    from tokenizers.pre_tokenizers import WhitespaceSplit
    from transformers import PreTrainedTokenizerFast

    vocabulary = [*_SPECIAL, *markers, *symbols]
    if len(set(vocabulary)) != len(vocabulary):
        raise ValueError("symbols must be distinct and must not repeat special tokens")
    backend = Tokenizer(WordLevel({symbol: i for i, symbol in enumerate(vocabulary)}, unk_token="<unk>"))
    backend.pre_tokenizer = WhitespaceSplit()
    tokenizer = PreTrainedTokenizerFast(
        tokenizer_object=backend,
        pad_token="<pad>",
        bos_token="<bos>",
        eos_token="<eos>",
        unk_token="<unk>",
        clean_up_tokenization_spaces=False,
    )
    tokenizer.chat_template = _CHAT_TEMPLATE.replace("OPENING", markers[0])
    return tokenizer
