"""Backtracking search as a language model writes it: attempts, and sentences that name the line to go back to.

The same form as `BacktrackTemplate`, but going back is a sentence of several tokens, as `Backtrack to Line 3`, so that
it is found in the text and no token stops the sampling at it.
"""

import re
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Annotated, ClassVar, Literal

import numpy as np
from pydantic import Field
from transformers import PreTrainedTokenizerBase

from mrt_pipeline.errors import InputError
from mrt_pipeline.policy.template import Split
from mrt_pipeline.policy.text_template import ChatParams, check_tokenizer, token_texts

_NUMBER = "<n>"


class TextBacktrackTemplateParams(ChatParams):
    """Backtracking search in text; see policy/text_backtrack_template.py."""

    kind: Literal["backtrack"] = "backtrack"
    suffix: str = Field(default="", description="put after every question")
    opening: str = Field(default="", description="text after the generation prompt")
    back: list[Annotated[str, Field(min_length=1)]] = Field(
        default=["Backtrack to beginning\n", "Backtrack to Line <n>\n"],
        min_length=1,
        description="sentences that go back, the first one to the start; <n> stands for a number",
    )

    @property
    def streams_answer(self) -> bool:
        """See `Template`."""
        return True

    def bind(self, tokenizer: PreTrainedTokenizerBase) -> "TextBacktrackTemplate":
        """See `TemplateParams.bind`."""
        return TextBacktrackTemplate.from_text(tokenizer, self.back, self.system_messages, self.suffix, self.opening)


@dataclass(frozen=True)
class TextBacktrackTemplate:
    """`prompt + attempt + back + attempt + back + ... + attempt + eos`; see `Template` and `BacktrackTemplate`.

    An attempt that is forced after a cut is sampled as far as the answer's limit of tokens; what follows the place
    where it goes back again is dropped.

    back: sentences that end an episode, the first one 'from the start', which budget forcing puts in place of eos;
        `<n>` stands for a number.
    """

    tokenizer: PreTrainedTokenizerBase
    back: tuple[str, ...]
    messages: tuple[dict[str, str], ...] = ()
    suffix: str = ""
    opening: str = ""
    close: ClassVar[tuple[int, ...]] = ()
    stop_phrase: ClassVar[tuple[int, ...]] = ()
    answer_end: ClassVar[tuple[int, ...]] = ()
    writes_freely: ClassVar[bool] = False
    streams_answer: ClassVar[bool] = True

    @classmethod
    def from_text(
        cls,
        tokenizer: PreTrainedTokenizerBase,
        back: Sequence[str],
        messages: Sequence[dict[str, str]] = (),
        suffix: str = "",
        opening: str = "",
    ) -> "TextBacktrackTemplate":
        """Build from strings. Raises InputError without a chat template, or if the first sentence names a line."""
        check_tokenizer(tokenizer)
        if _NUMBER in back[0]:
            raise InputError(f"policy.template.back must begin with the sentence for the start, not {back[0]!r}")
        return cls(tokenizer, tuple(back), tuple(messages), suffix, opening)

    @property
    def eos_id(self) -> int:
        """The end of the trace."""
        return self.tokenizer.eos_token_id

    @property
    def thinking_stops(self) -> tuple[int, ...]:
        """The end of the trace."""
        return (self.eos_id,)

    @property
    def answer_stops(self) -> tuple[int, ...]:
        """The end of the trace."""
        return (self.eos_id,)

    @property
    def extensions(self) -> tuple[tuple[int, ...], ...]:
        """Go back to the start."""
        return (tuple(self.tokenizer.encode(self.back[0], add_special_tokens=False)),)

    def boundaries(self, thought: Sequence[int], logprobs: Sequence[float] = ()) -> np.ndarray:
        """See `Template.boundaries`."""
        return np.unique([0, *self._ends(thought), len(thought)]).astype(np.int64)

    def snap(self, thought: Sequence[int], cut: int, finished: Sequence[int] = ()) -> int:
        """The last boundary at or before `cut`: 0, or just after a sentence that goes back."""
        return max([0, *self._ends(thought[:cut])])

    def split(self, stream: Sequence[int], stop_token_id: int | None, finished: Sequence[int] = ()) -> Split:
        """See `Template.split`."""
        stopped = stop_token_id is not None
        return Split(self.snap(stream, len(stream)), (), "stop" if stopped else "length", stopped)

    def natural_close(self, stop_token_id: int) -> tuple[int, ...]:
        """Empty: no answer follows, it stands in the stream."""
        return ()

    def answer_limit(self, answer_tokens: int, forced: bool) -> int:
        """The same for all."""
        return answer_tokens

    def answer_length(self, answer: Sequence[int]) -> int:
        """The attempt, and the first token of the sentence that goes back, which stands for its end."""
        pieces = token_texts(self.tokenizer, answer)
        found = self._pattern.search("".join(pieces))
        if not found:
            return len(answer)
        ends = np.cumsum([len(piece) for piece in pieces], dtype=np.int64)
        return int(np.searchsorted(ends, found.start(), side="right")) + 1

    def answer_text(self, text: str, ended: bool, forced: bool) -> str:
        """The attempt up to where it goes back; one that neither did so nor ended is none."""
        found = self._pattern.search(text)
        if found:
            return text[: found.start()]
        return text if ended else ""

    @cached_property
    def _pattern(self) -> re.Pattern[str]:
        return re.compile(
            "|".join(re.escape(sentence).replace(re.escape(_NUMBER), "[0-9]{1,6}") for sentence in self.back)
        )

    def _ends(self, token_ids: Sequence[int]) -> list[int]:
        """Numbers of tokens after which a sentence that goes back is complete."""
        pieces = token_texts(self.tokenizer, token_ids)
        ends = np.cumsum([len(piece) for piece in pieces], dtype=np.int64)
        found = self._pattern.finditer("".join(pieces))
        return [int(np.searchsorted(ends, match.end(), side="left")) + 1 for match in found]
