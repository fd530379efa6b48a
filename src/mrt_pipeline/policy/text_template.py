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
from typing import Annotated, ClassVar, Literal

import numpy as np
from pydantic import Field, model_validator
from transformers import PreTrainedTokenizerBase

from mrt_pipeline.errors import InputError
from mrt_pipeline.mrt.episodes import (
    fixed_boundaries,
    low_probability_boundaries,
    merge_episodes,
    paragraph_boundaries,
    paragraph_ends,
)
from mrt_pipeline.policy.families import find_family
from mrt_pipeline.policy.template import Split, TemplateParams
from mrt_pipeline.registry import Params, PositiveInt

MARKERS = (
    "Wait",
    "But wait",
    "Alternatively",
    "Is there another way to think about this?",
    "But let me double-check",
    "But hold on",
)
"""Openings of an episode in the paper's release (docs/method.md)."""
STOP_PHRASE = (
    "\n\nTime is up.\n\nGiven the time I've spent and the approaches I've tried, I should stop thinking and formulate "
    "a final answer based on what I already have.\n</think>\n\n**Final Answer**\n\n"
)
"""The paper's forced stop (docs/method.md), with a short answer instead of an explanation, as AnytimeReasoner does."""


class Segmentation(Params):
    """Cuts a thought into episodes."""

    kind: str

    def boundaries(self, pieces: Sequence[str], logprobs: np.ndarray) -> np.ndarray:
        """Episode boundaries from the text and the log-probability of each token; see mrt/episodes.py."""
        raise NotImplementedError


class Paragraphs(Segmentation):
    """The paper's rule; see `paragraph_boundaries` in mrt/episodes.py, and `Segmentation`."""

    kind: Literal["paragraphs"] = "paragraphs"
    markers: tuple[str, ...] = Field(
        default=MARKERS, min_length=1, description="a paragraph that starts with one may open an episode"
    )
    separator: str = Field(default="\n\n", min_length=1, description="what stands between paragraphs")
    min_paragraphs: PositiveInt = Field(default=3, description="least paragraphs from one episode's start to the next")
    max_episodes: PositiveInt | None = Field(
        default=None, description="most episodes; the rest belongs to the last; null: any number"
    )
    merge: PositiveInt = Field(default=1, description="neighbouring episodes that count as one")
    drop_unfinished: bool = Field(
        default=False,
        description="a thought that is cut loses the paragraph that the cut is in, unless it is the first",
    )

    def boundaries(self, pieces: Sequence[str], logprobs: np.ndarray) -> np.ndarray:
        """See `Segmentation`."""
        found = paragraph_boundaries(pieces, self.markers, self.min_paragraphs, self.max_episodes, self.separator)
        return merge_episodes(found, self.merge)


class FixedLength(Segmentation):
    """Episodes of equal length, for models without markers. See `fixed_boundaries`."""

    kind: Literal["tokens"] = "tokens"
    drop_unfinished: ClassVar[bool] = False
    every: PositiveInt = Field(description="tokens of an episode")

    def boundaries(self, pieces: Sequence[str], logprobs: np.ndarray) -> np.ndarray:
        """See `Segmentation`."""
        return fixed_boundaries(len(pieces), self.every)


class LowProbability(Segmentation):
    """Episodes between tokens that were improbable when sampled. See `low_probability_boundaries`."""

    kind: Literal["low_probability"] = "low_probability"
    drop_unfinished: ClassVar[bool] = False
    threshold: Annotated[float, Field(gt=0, le=1)] = Field(description="a token less probable is a cut point")
    cuts_per_episode: PositiveInt = Field(description="cut points of an episode")

    def boundaries(self, pieces: Sequence[str], logprobs: np.ndarray) -> np.ndarray:
        """See `Segmentation`."""
        return low_probability_boundaries(logprobs, self.threshold, self.cuts_per_episode)


class ExampleParams(Params):
    """A worked example, shown in the chat before the question."""

    question: str
    thought: str
    answer: str


class ChatParams(TemplateParams):
    """What the templates of language models have in common."""

    chat_template: str | None = Field(
        default=None, description="Jinja, in place of the tokenizer's own; null: that one"
    )
    system: str | None = Field(default=None, description="system prompt")

    @property
    def system_messages(self) -> list[dict[str, str]]:
        """The system prompt as a message, if there is one."""
        return [{"role": "system", "content": self.system}] if self.system else []


class TextTemplateParams(ChatParams):
    """How the model thinks and answers in text; see policy/text_template.py."""

    kind: Literal["think"] = "think"
    family: Literal["auto", "r1", "qwen3", "think"] | None = Field(
        default="auto",
        description="gives suffix, opening and close where they are null; auto: found from the chat template",
    )
    suffix: str | None = Field(
        default=None, description="put after every question, examples included; null: the family's instruction"
    )
    opening: str | None = Field(
        default=None,
        description="text after the generation prompt that opens the thought; null: the family's, if the chat template "
        "has none",
    )
    examples: list[ExampleParams] = Field(default=[], description="worked examples before the question")
    close: str | None = Field(default=None, description="marker that ends a thought: one token; null: the family's")
    stop_phrase: str = Field(
        default=STOP_PHRASE, description="put after a thought that is cut short; contains the marker"
    )
    natural_answer: Literal["opened", "free"] = Field(
        default="opened",
        description="after a marker that the model wrote itself: opened puts the end of the stop phrase in, as where "
        "it is stopped; free lets it write, and the last complete box counts",
    )
    free_answer_tokens: PositiveInt = Field(default=1024, description="most tokens of an answer that is written freely")
    answer_opening: str = Field(
        default="\\boxed{", description="end of the stop phrase that is part of the answer, as \\boxed{"
    )
    answer_end: str = Field(
        default="}", description="what the exact prover expects after an answer; empty: the end token"
    )
    extensions: list[Annotated[str, Field(min_length=1)]] = Field(
        default=["\nWait", "\nBut wait", "\nAlternatively", "\nBut hold on"],
        min_length=1,
        description="put in place of the marker when the thought is forced on, in turn",
    )
    segmentation: Annotated[Paragraphs | FixedLength | LowProbability, Field(discriminator="kind")] = Paragraphs()

    @model_validator(mode="after")
    def _family(self) -> "TextTemplateParams":
        lacking = [name for name in ("suffix", "opening", "close") if getattr(self, name) is None]
        if self.family is None and lacking:
            raise ValueError(f"without a family, template.{lacking[0]} must be given; or set template.family=auto")
        return self

    @property
    def writes_freely(self) -> bool:
        """See `Template`."""
        return self.natural_answer == "free"

    def bind(self, tokenizer: PreTrainedTokenizerBase) -> "TextTemplate":
        """See `TemplateParams.bind`; what is null comes from the family."""
        check_tokenizer(tokenizer)
        family = find_family(tokenizer, self.family) if self.family else None
        suffix, opening, close = (
            getattr(family, name) if getattr(self, name) is None else getattr(self, name)
            for name in ("suffix", "opening", "close")
        )
        messages = self.system_messages
        for example in self.examples:
            written = f"{opening}{example.thought}{close}{example.answer}"
            messages += [
                {"role": "user", "content": example.question + suffix},
                {"role": "assistant", "content": written},
            ]
        return TextTemplate.from_text(
            tokenizer,
            self.segmentation,
            close,
            self.stop_phrase,
            self.answer_opening,
            self.answer_end,
            self.extensions,
            self.free_answer_tokens if self.writes_freely else None,
            messages,
            suffix,
            opening,
        )


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
