"""Backtracking search as a language model writes it: attempts, and sentences that name the line to go back to.

The same form as `BacktrackTemplate`, but going back is a sentence of several tokens, as `Backtrack to Line 3`, so that
it is found in the text and no token stops the sampling at it.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Annotated, ClassVar, Literal

import numpy as np
from pydantic import Field

from mrt_pipeline.errors import InputError
from mrt_pipeline.mrt.episodes import Tokens
from mrt_pipeline.policy.template import Template
from mrt_pipeline.policy.text_template import ChatParams, check_tokenizer, token_texts

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

_NUMBER = "<n>"


class TextBacktrackTemplateParams(ChatParams):
    """Backtracking search in text; see policy/text_backtrack_template.py."""

    kind: Literal["backtrack"] = "backtrack"
    streams_answer: ClassVar[bool] = True
    suffix: str = Field(default="", description="put after every question")
    opening: str = Field(default="", description="text after the generation prompt")
    back: list[Annotated[str, Field(min_length=1)]] = Field(
        default=["Backtrack to beginning\n", "Backtrack to Line <n>\n"],
        min_length=1,
        description="sentences that go back, the first one to the start; <n> stands for a number",
    )

    def bind(self, tokenizer: PreTrainedTokenizerBase) -> TextBacktrackTemplate:
        """See `TemplateParams`."""
        check_tokenizer(tokenizer)
        start = self.back[0]
        if _NUMBER in start:
            raise InputError(f"policy.template.back must begin with the sentence for the start, not {start!r}")
        return TextBacktrackTemplate(
            eos_id=tokenizer.eos_token_id,
            extensions=(tuple(tokenizer.encode(start, add_special_tokens=False)),),
            messages=tuple(self.system_messages),
            suffix=self.suffix,
            opening=self.opening,
            tokenizer=tokenizer,
            back=tuple(self.back),
        )


@dataclass(frozen=True, kw_only=True)
class TextBacktrackTemplate(Template):
    """`prompt + attempt + back + attempt + back + ... + attempt + eos`; see `BacktrackTemplate`.

    An attempt that is forced after a cut is sampled as far as the answer's limit of tokens; what follows the place
    where it goes back again is dropped.

    back: sentences that end an episode, the first one 'from the start', which budget forcing puts in place of eos;
        `<n>` stands for a number.
    """

    tokenizer: PreTrainedTokenizerBase
    back: tuple[str, ...]
    streams_answer: ClassVar[bool] = True

    def boundaries(self, thought: Tokens, logprobs: Sequence[float] | np.ndarray = ()) -> np.ndarray:
        """See `Template`."""
        return np.unique([0, *self._ends(thought), len(thought)]).astype(np.int64)

    def snap(self, thought: Tokens, cut: int, finished: Sequence[int] = ()) -> int:
        """The last boundary at or before `cut`: 0, or just after a sentence that goes back."""
        return max([0, *self._ends(thought[:cut])])

    def answer_length(self, answer: Tokens) -> int:
        """The attempt, and the first token of the sentence that goes back, which stands for its end."""
        text, ends = self._read(answer)
        found = self._pattern.search(text)
        return int(np.searchsorted(ends, found.start(), side="right")) + 1 if found else len(answer)

    def answer_text(self, text: str, ended: bool, forced: bool) -> str:
        """The attempt up to where it goes back; one that neither did so nor ended is none."""
        found = self._pattern.search(text)
        return text[: found.start()] if found else super().answer_text(text, ended, forced)

    @cached_property
    def _pattern(self) -> re.Pattern[str]:
        sentences = [re.escape(sentence).replace(re.escape(_NUMBER), "[0-9]{1,6}") for sentence in self.back]
        return re.compile("|".join(sentences))

    def _read(self, token_ids: Tokens) -> tuple[str, np.ndarray]:
        """The text, and how many characters it has after each token."""
        pieces = token_texts(self.tokenizer, token_ids)
        return "".join(pieces), np.cumsum([len(piece) for piece in pieces], dtype=np.int64)

    def _ends(self, token_ids: Tokens) -> list[int]:
        """Numbers of tokens after which a sentence that goes back is complete."""
        text, ends = self._read(token_ids)
        found = [match.end() for match in self._pattern.finditer(text)]
        return (np.searchsorted(ends, found, side="left") + 1).tolist()
