r"""How a language model thinks and answers in text: chat template, closing marker, stop phrase, episodes.

Two styles, the same code. Reasoning models think between tags and go on after `</think>`; plain models are shown by
examples to write their steps, then a closing marker such as `####`, then the answer. The marker is one token.
Backtracking search in text: `text_backtrack_template.py`. Families of reasoning models: `families.py`.

A thought that is cut gets the stop phrase, which ends with the answer's opening, as `\boxed{`. Where the model closes
its thought itself, its answer is read in one of two ways (`natural_answer`):

    opened   the answer's opening is put in there as well, as AnytimeReasoner does (arXiv 2505.13438); short, and the
             same everywhere
    free     the model writes what it likes, as when it is deployed; its last complete box counts, and an answer without
             one is none
"""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import ClassVar, Protocol

import numpy as np
from transformers import PreTrainedTokenizerBase

from mrt_pipeline.errors import InputError
from mrt_pipeline.mrt.episodes import (
    fixed_boundaries,
    low_probability_boundaries,
    merge_episodes,
    paragraph_boundaries,
    paragraph_ends,
)
from mrt_pipeline.policy.template import Split


class Segmentation(Protocol):
    """Cuts a thought into episodes.

    drop_unfinished: a cut goes back to the last paragraph that is finished; `separator` is what ends one.
    """

    drop_unfinished: bool
    separator: str

    def boundaries(self, pieces: Sequence[str], logprobs: np.ndarray) -> np.ndarray:
        """Episode boundaries from the text and the log-probability of each token; see mrt/episodes.py."""
        ...


@dataclass(frozen=True)
class Paragraphs:
    """The paper's rule; `merge` neighbouring episodes are one. See `paragraph_boundaries`, and `Segmentation`."""

    markers: tuple[str, ...]
    min_paragraphs: int
    max_episodes: int | None
    merge: int
    separator: str = "\n\n"
    drop_unfinished: bool = False

    def boundaries(self, pieces: Sequence[str], logprobs: np.ndarray) -> np.ndarray:
        """See `Segmentation`."""
        found = paragraph_boundaries(pieces, self.markers, self.min_paragraphs, self.max_episodes, self.separator)
        return merge_episodes(found, self.merge)


@dataclass(frozen=True)
class FixedLength:
    """An episode every so many tokens. See `fixed_boundaries`."""

    every: int
    separator: ClassVar[str] = ""
    drop_unfinished: ClassVar[bool] = False

    def boundaries(self, pieces: Sequence[str], logprobs: np.ndarray) -> np.ndarray:
        """See `Segmentation`."""
        return fixed_boundaries(len(pieces), self.every)


@dataclass(frozen=True)
class LowProbability:
    """Episodes between tokens that were improbable when sampled. See `low_probability_boundaries`."""

    threshold: float
    cuts_per_episode: int
    separator: ClassVar[str] = ""
    drop_unfinished: ClassVar[bool] = False

    def boundaries(self, pieces: Sequence[str], logprobs: np.ndarray) -> np.ndarray:
        """See `Segmentation`."""
        return low_probability_boundaries(logprobs, self.threshold, self.cuts_per_episode)


@dataclass(frozen=True)
class TextTemplate:
    """See `Template` and the module's docstring.

    tokenizer: the policy's. segmentation: what an episode is.
    close_ids: tokens that end a thought, the same text with and without a space before it; the first is the usual one.
    eos_id: ends the trace. stop_phrase: ids put after a thought that is cut short; they contain the closing marker.
    natural_opening: ids put in after a closing marker that the model wrote: what follows the marker in the stop phrase,
        or nothing where it writes freely.
    answer_opening: text at the end of the stop phrase that belongs to the answer, as `\boxed{`.
    answer_ending: text that closes what it opens, as `}`; may be empty.
    answer_end: ids that the exact prover expects after an accepted answer.
    free_answer_tokens: most tokens of an answer that is written freely; None if answers are opened.
    extensions: ids put in place of the closing marker when the thought is forced on, in turn.
    messages: of the chat, before the question: a system prompt, examples. suffix: put after the question.
    opening: text after the generation prompt.
    """

    tokenizer: PreTrainedTokenizerBase
    segmentation: Segmentation
    close_ids: tuple[int, ...]
    eos_id: int
    stop_phrase: tuple[int, ...]
    natural_opening: tuple[int, ...]
    answer_opening: str
    answer_ending: str
    answer_end: tuple[int, ...]
    extensions: tuple[tuple[int, ...], ...]
    free_answer_tokens: int | None = None
    messages: tuple[dict[str, str], ...] = ()
    suffix: str = ""
    opening: str = ""
    streams_answer: ClassVar[bool] = False

    @classmethod
    def from_text(
        cls,
        tokenizer: PreTrainedTokenizerBase,
        segmentation: Segmentation,
        close: str,
        stop_phrase: str,
        answer_opening: str,
        answer_end: str,
        extensions: Sequence[str],
        free_answer_tokens: int | None = None,
        messages: Sequence[dict[str, str]] = (),
        suffix: str = "",
        opening: str = "",
    ) -> "TextTemplate":
        """Build from strings. Raises InputError without a chat template, or if the marker is not one token."""
        check_tokenizer(tokenizer)
        encoded = [tokenizer.encode(text, add_special_tokens=False) for text in (close, f" {close}", f"\n{close}")]
        close_ids = tuple(
            dict.fromkeys(ids[-1] for ids in encoded if tokenizer.decode(ids[-1:]).strip() == close.strip())
        )
        if not close_ids:
            raise InputError(
                f"policy.template.close {close!r} must be one token of this policy's tokenizer, but is "
                f"{len(encoded[0])}: choose a marker that is (for example '####'), or the model's own end of thinking"
            )
        if close.strip() not in stop_phrase:
            raise InputError(f"policy.template.stop_phrase {stop_phrase!r} does not contain the marker {close!r}")
        after_close = stop_phrase.rpartition(close.strip())[2] + answer_opening
        natural = after_close if free_answer_tokens is None else ""
        return cls(
            tokenizer=tokenizer,
            segmentation=segmentation,
            close_ids=close_ids,
            eos_id=tokenizer.eos_token_id,
            stop_phrase=tuple(tokenizer.encode(stop_phrase + answer_opening, add_special_tokens=False)),
            natural_opening=tuple(tokenizer.encode(natural, add_special_tokens=False)),
            answer_opening=answer_opening,
            answer_ending=answer_end,
            answer_end=tuple(tokenizer.encode(answer_end, add_special_tokens=False)) or (tokenizer.eos_token_id,),
            extensions=tuple(tuple(tokenizer.encode(extension, add_special_tokens=False)) for extension in extensions),
            free_answer_tokens=free_answer_tokens,
            messages=tuple(messages),
            suffix=suffix,
            opening=opening,
        )

    @property
    def thinking_stops(self) -> tuple[int, ...]:
        """The closing marker, and the end of the trace."""
        return (*self.close_ids, self.eos_id)

    @property
    def answer_stops(self) -> tuple[int, ...]:
        """The end of the trace."""
        return (self.eos_id,)

    @property
    def close(self) -> tuple[int, ...]:
        """The usual closing marker, and the answer's opening where that is put in."""
        return (self.close_ids[0], *self.natural_opening)

    @property
    def writes_freely(self) -> bool:
        """Whether a natural answer is what the model likes to write."""
        return self.free_answer_tokens is not None

    def boundaries(self, thought: Sequence[int], logprobs: np.ndarray) -> np.ndarray:
        """See `Template.boundaries`."""
        return self.segmentation.boundaries(token_texts(self.tokenizer, thought), logprobs)

    def snap(self, thought: Sequence[int], cut: int, finished: Sequence[int] = ()) -> int:
        """`cut` itself, as a thought can be stopped after any token; or the end of the last paragraph that is finished.

        The latter where the segmentation says so. The paper's released code does so with what was sampled after an
        extension and cut by length (`pass_at_k_extrapolate.py`), and keeps nothing of it if no paragraph is finished;
        here every cut goes back to the separator, or stop, before it. Only a first paragraph stays though it is not
        finished: nothing would be left, and there too a first thought is never shortened.
        """
        if not self.segmentation.drop_unfinished:
            return int(cut)
        pieces = token_texts(self.tokenizer, thought)
        places = [*paragraph_ends(pieces, self.segmentation.separator), *map(int, finished)]
        return max((place for place in places if 0 < place <= cut), default=int(cut))

    def split(self, stream: Sequence[int], stop_token_id: int | None, finished: Sequence[int] = ()) -> Split:
        """See `Template.split`. A trace that ends inside its thought answers with nothing."""
        if stop_token_id is None:
            return Split(self.snap(stream, len(stream), finished), self.stop_phrase, "length", False)
        if close := self.natural_close(stop_token_id):
            return Split(len(stream), close, "stop", False)
        return Split(len(stream), (), "eos", True)

    def natural_close(self, stop_token_id: int) -> tuple[int, ...]:
        """See `Template.natural_close`."""
        return (stop_token_id, *self.natural_opening) if stop_token_id in self.close_ids else ()

    def answer_limit(self, answer_tokens: int, forced: bool) -> int:
        """See `Template.answer_limit`."""
        return answer_tokens if forced or self.free_answer_tokens is None else self.free_answer_tokens

    def answer_length(self, answer: Sequence[int]) -> int:
        """All: a token ends it."""
        return len(answer)

    def answer_text(self, text: str, ended: bool, forced: bool) -> str:
        """See `Template.answer_text`. An answer that was cut loses its last word, which may not be whole.

        One that was written freely is none without a complete box (or what else the answer's opening is): a number that
        happens to stand in a text is no answer.
        """
        if self.writes_freely and not forced and self.answer_opening:
            if not any(map(self._is_closed, text.split(self.answer_opening)[1:])):
                return ""
        else:
            text = f"{self.answer_opening}{text}"
        return text if ended else text.rstrip(_WORD)

    def _is_closed(self, rest: str) -> bool:
        """Whether what an answer's opening has opened is closed in the text after it; braces may be nested."""
        if self.answer_ending != "}":
            return self.answer_ending in rest
        depth = 1
        for char in rest:
            depth += (char == "{") - (char == "}")
            if depth == 0:
                return True
        return False


def check_tokenizer(tokenizer: PreTrainedTokenizerBase) -> None:
    """Raise InputError for a tokenizer that cannot put a question, or end an answer."""
    if tokenizer.chat_template is None:
        raise InputError(
            "the policy's tokenizer has no chat template, so it is not known how a question is put to it: "
            "set policy.template.chat_template (Jinja), or choose an instruction-tuned model"
        )
    if tokenizer.eos_token_id is None:
        raise InputError("the policy's tokenizer has no end token (eos), so an answer could never end")


def token_texts(tokenizer: PreTrainedTokenizerBase, token_ids: Sequence[int]) -> list[str]:
    """The text of each token inside a text; decoded alone, it might lose a space."""
    return [_token_text(tokenizer, int(token)) for token in token_ids]


@lru_cache(maxsize=2**18)  # cuts of the same thoughts are asked for again and again
def _token_text(tokenizer: PreTrainedTokenizerBase, token: int) -> str:
    before = tokenizer.eos_token_id
    return tokenizer.decode([before, token])[len(tokenizer.decode([before])) :]


_WORD = "0123456789.,/abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ"
