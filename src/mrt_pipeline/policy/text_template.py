r"""How a language model thinks and answers in text: chat template, closing marker, stop phrase, episodes.

Reasoning models think between tags and go on after `</think>`; plain models are shown by examples to write their steps,
then a closing marker such as `####`, then the answer. The marker is one token. Families of reasoning models differ in
who opens the thought with `<think>`:

    r1      the chat template, at the end of its generation prompt: DeepSeek-R1, its distillates, Qwen3 thinking models
    qwen3   the model, unless its chat template is told `enable_thinking=False`: hybrid Qwen3 models
    think   the model: its chat template knows nothing of thinking

Where the model would open it, the opening is put in, so that every thought begins after it.

A thought that is cut gets the stop phrase, which ends with the answer's opening, as `\boxed{`. Where the model closes
its thought itself, its answer is read in one of two ways (`natural_answer`):

    opened   the answer's opening is put in there as well, as AnytimeReasoner does (arXiv 2505.13438); short, and the
             same everywhere
    free     the model writes what it likes, as when it is deployed; its last complete box counts, and an answer without
             one is none

In backtracking search the model writes attempts, and sentences that name the line to go back to, as `Backtrack to Line
3`. They take several tokens, so that they are found in the text and no token stops the sampling at them.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from itertools import accumulate
from string import ascii_letters, digits
from typing import TYPE_CHECKING, Annotated, ClassVar, Literal

import numpy as np
from pydantic import Field, model_validator

from mrt_pipeline.errors import InputError
from mrt_pipeline.mrt.episodes import (
    Tokens,
    fixed_boundaries,
    low_probability_boundaries,
    merge_episodes,
    paragraph_boundaries,
    paragraph_ends,
)
from mrt_pipeline.policy.template import THINK_CLOSE, THINK_OPEN, Backtracking, Template, TemplateParams
from mrt_pipeline.registry import Params, PositiveInt

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

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
INSTRUCTION = "\nPlease reason step by step, and put your final answer within \\boxed{}."
"""What the model cards of DeepSeek-R1 and of Qwen3 recommend for mathematical problems."""
OPENINGS = {"r1": "", "qwen3": f"{THINK_OPEN}\n", "think": f"{THINK_OPEN}\n"}
"""What is put after the generation prompt, by family."""
_WORD = f"{digits}.,/{ascii_letters}"


class Paragraphs(Params):
    """The paper's rule; see `paragraph_boundaries` in mrt/episodes.py."""

    kind: Literal["paragraphs"] = "paragraphs"
    markers: tuple[str, ...] = Field(default=MARKERS, min_length=1, description="with which an episode may start")
    separator: str = Field(default="\n\n", min_length=1, description="what stands between paragraphs")
    min_paragraphs: PositiveInt = Field(default=3, description="least paragraphs from one episode's start to the next")
    max_episodes: PositiveInt | None = Field(default=None, description="the last takes the rest; null: any number")
    merge: PositiveInt = Field(default=1, description="neighbouring episodes that count as one")
    drop_unfinished: bool = Field(
        default=False, description="a cut thought loses the paragraph that the cut is in, unless it is the first"
    )

    def boundaries(self, pieces: Sequence[str], logprobs: Sequence[float] | np.ndarray) -> np.ndarray:
        """See `Segmentation`."""
        found = paragraph_boundaries(pieces, self.markers, self.min_paragraphs, self.max_episodes, self.separator)
        return merge_episodes(found, self.merge)


class FixedLength(Params):
    """Episodes of equal length, for models without markers. See `fixed_boundaries`."""

    kind: Literal["tokens"] = "tokens"
    every: PositiveInt = Field(description="tokens of an episode")

    def boundaries(self, pieces: Sequence[str], logprobs: Sequence[float] | np.ndarray) -> np.ndarray:
        """See `Segmentation`."""
        return fixed_boundaries(len(pieces), self.every)


class LowProbability(Params):
    """Episodes between tokens that were improbable when sampled. See `low_probability_boundaries`."""

    kind: Literal["low_probability"] = "low_probability"
    threshold: Annotated[float, Field(gt=0, le=1)] = Field(description="a token less probable is a cut point")
    cuts_per_episode: PositiveInt = Field(description="cut points of an episode")

    def boundaries(self, pieces: Sequence[str], logprobs: Sequence[float] | np.ndarray) -> np.ndarray:
        """See `Segmentation`."""
        return low_probability_boundaries(logprobs, self.threshold, self.cuts_per_episode)


Segmentation = Annotated[Paragraphs | FixedLength | LowProbability, Field(discriminator="kind")]
"""Cuts a thought into episodes. `boundaries`: from text and log-probability of each token; see mrt/episodes.py."""


class ExampleParams(Params):
    """A worked example, shown in the chat before the question."""

    question: str
    thought: str
    answer: str


class ChatParams(TemplateParams):
    """What the templates of language models have in common."""

    chat_template: str | None = Field(default=None, description="Jinja; null: the tokenizer's own")
    system: str | None = Field(default=None, description="system prompt")

    @property
    def system_messages(self) -> list[tuple[str, str]]:
        """The system prompt as a message, if there is one."""
        return [("system", self.system)] if self.system else []


class TextTemplateParams(ChatParams):
    """How the model thinks and answers in text; see policy/text_template.py."""

    kind: Literal["think"] = "think"
    family: Literal["auto", "r1", "qwen3", "think"] | None = Field(
        default="auto", description="gives suffix, opening and close where null; auto: found from the chat template"
    )
    suffix: str | None = Field(default=None, description="put after every question; null: the family's instruction")
    opening: str | None = Field(default=None, description="put before the thought; null: the family's, if it has one")
    examples: list[ExampleParams] = Field(default=[], description="worked examples before the question")
    close: str | None = Field(default=None, description="marker that ends a thought: one token; null: the family's")
    stop_phrase: str = Field(default=STOP_PHRASE, description="put after a thought that is cut; contains the marker")
    natural_answer: Literal["opened", "free"] = Field(
        default="opened",
        description="after a marker that the model wrote itself: opened puts the end of the stop phrase in, as where "
        "it is stopped; free lets it write, and the last complete box counts",
    )
    free_answer_tokens: PositiveInt = Field(default=1024, description="most tokens of an answer that is written freely")
    answer_opening: str = Field(default="\\boxed{", description="put after the stop phrase, and part of the answer")
    answer_end: str = Field(default="}", description="what the exact prover expects after an answer; empty: eos")
    extensions: list[Annotated[str, Field(min_length=1)]] = Field(
        default=["\nWait", "\nBut wait", "\nAlternatively", "\nBut hold on"],
        min_length=1,
        description="put in place of the marker when the thought is forced on, in turn",
    )
    segmentation: Segmentation = Paragraphs()

    @model_validator(mode="after")
    def _family(self) -> TextTemplateParams:
        lacking = [name for name in ("suffix", "opening", "close") if getattr(self, name) is None]
        if self.family is None and lacking:
            raise ValueError(f"without a family, template.{lacking[0]} must be given; or set template.family=auto")
        return self

    @property
    def writes_freely(self) -> bool:
        """See `Template`."""
        return self.natural_answer == "free"

    def bind(self, tokenizer: PreTrainedTokenizerBase) -> TextTemplate:
        """See `TemplateParams`; what is null comes from the family."""
        check_tokenizer(tokenizer)
        given = self.model_dump(include={"suffix", "opening", "close"}, exclude_none=True)
        if self.family:
            opening = OPENINGS[find_family(tokenizer, self.family)]
            given = {"suffix": INSTRUCTION, "opening": opening, "close": THINK_CLOSE, **given}
        suffix, opening, close = given["suffix"], given["opening"], given["close"]
        close_ids = _close_ids(tokenizer, close)
        if close.strip() not in self.stop_phrase:
            raise InputError(f"policy.template.stop_phrase {self.stop_phrase!r} does not contain the marker {close!r}")

        def encode(text: str) -> tuple[int, ...]:
            return tuple(tokenizer.encode(text, add_special_tokens=False))

        after_close = self.stop_phrase.rpartition(close.strip())[2] + self.answer_opening
        messages = self.system_messages
        for shown in self.examples:
            written = f"{opening}{shown.thought}{close}{shown.answer}"
            messages += [("user", shown.question + suffix), ("assistant", written)]
        return TextTemplate(
            tokenizer=tokenizer,
            params=self,
            eos_id=tokenizer.eos_token_id,
            close_ids=close_ids,
            natural_opening=() if self.writes_freely else encode(after_close),
            stop_phrase=encode(self.stop_phrase + self.answer_opening),
            answer_end=encode(self.answer_end) or (tokenizer.eos_token_id,),
            free_answer_tokens=self.free_answer_tokens if self.writes_freely else None,
            extensions=tuple(map(encode, self.extensions)),
            messages=tuple(messages),
            suffix=suffix,
            opening=opening,
        )


@dataclass(frozen=True, kw_only=True)
class TextTemplate(Template):
    """Open-ended thinking in text. close_ids: the same text with and without a space before it."""

    tokenizer: PreTrainedTokenizerBase
    params: TextTemplateParams

    def boundaries(self, thought: Tokens, logprobs: Sequence[float] | np.ndarray) -> np.ndarray:
        """See `Template`."""
        return self.params.segmentation.boundaries(token_texts(self.tokenizer, thought), logprobs)

    def snap(self, thought: Tokens, cut: int, finished: Sequence[int] = ()) -> int:
        """`cut` itself, or, where the segmentation drops what is unfinished, the separator or stop before it.

        The paper's released code does the latter with what was sampled after an extension and cut by length
        (`pass_at_k_extrapolate.py`). A first paragraph stays though it is not finished: nothing would be left.
        """
        segmentation = self.params.segmentation
        if not isinstance(segmentation, Paragraphs) or not segmentation.drop_unfinished:
            return int(cut)
        pieces = token_texts(self.tokenizer, thought)
        places = [*paragraph_ends(pieces, segmentation.separator), *map(int, finished)]
        return max((place for place in places if 0 < place <= cut), default=int(cut))

    def answer_text(self, text: str, ended: bool, forced: bool) -> str:
        """See `Template`. An answer that was cut loses its last word, which may not be whole.

        One that was written freely is none without a complete box (or what else the answer's opening is).
        """
        opening = self.params.answer_opening
        if forced or not self.writes_freely:
            text = opening + text
        elif opening and not any(map(self._is_closed, text.split(opening)[1:])):
            return ""
        return text if ended else text.rstrip(_WORD)

    def _is_closed(self, rest: str) -> bool:
        """Whether what an answer's opening has opened is closed in the text after it; braces may be nested."""
        if self.params.answer_end != "}":
            return self.params.answer_end in rest
        return 0 in accumulate(((char == "{") - (char == "}") for char in rest), initial=1)


class TextBacktrackTemplateParams(ChatParams):
    """Backtracking search in text; see policy/text_template.py."""

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
        start, number = self.back[0], "<n>"
        if number in start:
            raise InputError(f"policy.template.back must begin with the sentence for the start, not {start!r}")
        sentences = [re.escape(sentence).replace(number, "[0-9]{1,6}") for sentence in self.back]
        return TextBacktrackTemplate(
            eos_id=tokenizer.eos_token_id,
            extensions=(tuple(tokenizer.encode(start, add_special_tokens=False)),),
            messages=tuple(self.system_messages),
            suffix=self.suffix,
            opening=self.opening,
            tokenizer=tokenizer,
            pattern=re.compile("|".join(sentences)),
        )


@dataclass(frozen=True, kw_only=True)
class TextBacktrackTemplate(Backtracking):
    """Backtracking search in text. pattern: of the sentences that go back.

    An attempt that is forced after a cut is sampled as far as the answer's limit of tokens; what follows the place
    where it goes back again is dropped.
    """

    tokenizer: PreTrainedTokenizerBase
    pattern: re.Pattern[str]

    def ends(self, thought: Tokens) -> list[int]:
        """See `Backtracking`."""
        text, ends = self._read(thought)
        found = [match.end() for match in self.pattern.finditer(text)]
        return (np.searchsorted(ends, found, side="left") + 1).tolist()

    def answer_length(self, answer: Tokens) -> int:
        """The attempt, and the first token of the sentence that goes back, which stands for its end."""
        text, ends = self._read(answer)
        found = self.pattern.search(text)
        return int(np.searchsorted(ends, found.start(), side="right")) + 1 if found else len(answer)

    def answer_text(self, text: str, ended: bool, forced: bool) -> str:
        """The attempt up to where it goes back; one that neither did so nor ended is none."""
        found = self.pattern.search(text)
        return text[: found.start()] if found else super().answer_text(text, ended, forced)

    def _read(self, token_ids: Tokens) -> tuple[str, np.ndarray]:
        """The text, and how many characters it has after each token."""
        pieces = token_texts(self.tokenizer, token_ids)
        return "".join(pieces), np.cumsum([len(piece) for piece in pieces], dtype=np.int64)


def find_family(tokenizer: PreTrainedTokenizerBase, name: str = "auto") -> str:
    """The family by its name, or (auto) the one that the tokenizer's chat template shows.

    Raises InputError if the chosen family does not fit what the chat template does.
    """
    asked = [{"role": "user", "content": "?"}]
    prompt = tokenizer.apply_chat_template(asked, tokenize=False, add_generation_prompt=True)
    opened = str(prompt).rstrip().endswith(THINK_OPEN)
    if name == "auto":
        return "r1" if opened else "qwen3" if "enable_thinking" in str(tokenizer.chat_template) else "think"
    if opened != (name == "r1"):
        does = "opens the thought itself" if opened else "does not open the thought"
        raise InputError(
            f"policy.template.family is {name}, but the model's chat template {does}: set it to auto, or give "
            "policy.template.chat_template"
        )
    return name


def check_tokenizer(tokenizer: PreTrainedTokenizerBase) -> None:
    """Raise InputError for a tokenizer that cannot put a question, or end an answer."""
    if tokenizer.chat_template is None:
        raise InputError(
            "the policy's tokenizer has no chat template, so it is not known how a question is put to it: "
            "set policy.template.chat_template (Jinja), or choose an instruction-tuned model"
        )
    if tokenizer.eos_token_id is None:
        raise InputError("the policy's tokenizer has no end token (eos), so an answer could never end")


def _close_ids(tokenizer: PreTrainedTokenizerBase, close: str) -> tuple[int, ...]:
    """Last tokens of the marker's text, as it stands after anything; the usual one first."""
    encoded = [tokenizer.encode(before + close, add_special_tokens=False) for before in ("", " ", "\n")]
    found = tuple(dict.fromkeys(ids[-1] for ids in encoded if str(tokenizer.decode(ids[-1:])).strip() == close.strip()))
    if not found:
        raise InputError(
            f"policy.template.close {close!r} must be one token of this policy's tokenizer, but is {len(encoded[0])}: "
            "choose a marker that is (for example '####'), or the model's own end of thinking"
        )
    return found


def token_texts(tokenizer: PreTrainedTokenizerBase, token_ids: Tokens) -> list[str]:
    """The text of each token inside a text; decoded alone, it might lose a space."""
    return [_token_text(tokenizer, int(token)) for token in token_ids]


@lru_cache(maxsize=2**18)  # cuts of the same thoughts are asked for again and again
def _token_text(tokenizer: PreTrainedTokenizerBase, token: int) -> str:
    before, both = (str(tokenizer.decode([tokenizer.eos_token_id, *ids])) for ids in ((), (token,)))
    return both[len(before) :]
