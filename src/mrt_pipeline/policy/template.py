"""How a policy thinks and answers: the tokens around the thought, and where a thought may be cut.

A template is given in words (`TemplateParams`), which are saved with the policy, and bound to its tokenizer. Two forms.
Open-ended thinking: markers open episodes, `</think>` ends the thought, and the answer follows it. Backtracking search:
every attempt answers, going back separates them, and the last attempt of the stream is the answer. Here are those of
policies made from scratch, whose words are symbols, and their tokenizer; in text: `text_template.py`.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar, Literal

import numpy as np
from pydantic import Field

from mrt_pipeline.mrt.episodes import Tokens, episode_boundaries
from mrt_pipeline.registry import Params

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase, PreTrainedTokenizerFast

THINK_OPEN, THINK_CLOSE = "<think>", "</think>"
_SPECIAL = {f"{name}_token": f"<{name}>" for name in ("pad", "bos", "eos", "unk")}
# The question, then the opening of the thought: what a chat template of a reasoning model renders.
_CHAT_TEMPLATE = (
    "{{ bos_token }}{% for message in messages %} {{ message['content'] }}{% endfor %}"
    "{% if add_generation_prompt %} OPENING{% endif %}"
)


@dataclass(frozen=True)
class Split:
    """A sampled stream, divided into thought and answer.

    n_thought: its first so many tokens are the thought. close: ids that follow the thought. stop_reason: as in Rollout.
    answered: the rest of the stream, with its stop token, is the answer; otherwise it is dropped, and an answer is to
        be sampled after thought and close.
    """

    n_thought: int
    close: tuple[int, ...]
    stop_reason: str
    answered: bool


@dataclass(frozen=True, kw_only=True)
class Template(ABC):
    """Token ids that structure a trace `prompt + thought + close + answer`, and what follows from them.

    eos_id: ends the trace. close_ids: tokens that end a thought, the usual one first.
    natural_opening: put in after the token with which the policy itself ended its thought.
    stop_phrase: put after a thought that is cut short, where an answer is forced.
    answer_end: what the exact prover expects after an accepted answer.
    free_answer_tokens: after its own `close` the policy writes what it likes, at most so many tokens; None: it doesn't.
    extensions: put in place of a stop when the thought is forced on (budget forcing), in turn.
    messages, suffix, opening: of a chat, what stands before the question (role and text), what is put after it, and
        what opens the thought; see `encode_prompt`.
    streams_answer: the policy answers in the stream itself, so the reward of an answer is known where it tries to stop.
    """

    eos_id: int
    close_ids: tuple[int, ...] = ()
    natural_opening: tuple[int, ...] = ()
    stop_phrase: tuple[int, ...] = ()
    answer_end: tuple[int, ...] = ()
    free_answer_tokens: int | None = None
    extensions: tuple[tuple[int, ...], ...] = ()
    messages: tuple[tuple[str, str], ...] = ()
    suffix: str = ""
    opening: str = ""
    streams_answer: ClassVar[bool] = False

    @property
    def thinking_stops(self) -> tuple[int, ...]:
        """Tokens that end a sampled stream."""
        return (*self.close_ids, self.eos_id)

    @property
    def answer_stops(self) -> tuple[int, ...]:
        """Tokens that end a sampled answer."""
        return (self.eos_id,)

    @property
    def close(self) -> tuple[int, ...]:
        """Between thought and answer where the policy itself ends its thought: with which token, and what is put in."""
        return (*self.close_ids[:1], *self.natural_opening)

    @property
    def writes_freely(self) -> bool:
        """Whether it does so after its own `close`: the probability of that is not that of an accepted answer."""
        return self.free_answer_tokens is not None

    @abstractmethod
    def boundaries(self, thought: Tokens, logprobs: Sequence[float] | np.ndarray) -> np.ndarray:
        """Prefix lengths at which an episode of the thought ends, int64: first 0, last len(thought).

        logprobs: log-probability of each token when it was sampled, for segmentations that look for uncertainty.
        """

    def snap(self, thought: Tokens, cut: int, finished: Sequence[int] = ()) -> int:
        """The last place at or before `cut` thinking tokens where an answer can be forced. The only rule for cuts.

        finished: numbers of tokens after which an answer can be forced whatever the thought looks like there: where the
            policy itself tried to stop, and the end of what was cut already.
        """
        return int(cut)

    def split(self, stream: Tokens, stop_token_id: int | None, finished: Sequence[int] = ()) -> Split:
        """Divide a stream that ended with this stop token, or by length (None). finished: as in `snap`.

        A trace that ends inside its thought answers with nothing, unless it answers in the stream.
        """
        if stop_token_id is None:
            return Split(self.snap(stream, len(stream), finished), self.stop_phrase, "length", False)
        if self.streams_answer:
            return Split(self.snap(stream, len(stream), finished), (), "stop", True)
        close = self.natural_close(stop_token_id)
        return Split(len(stream), close, "stop" if close else "eos", not close)

    def natural_close(self, stop_token_id: int) -> tuple[int, ...]:
        """`close`, where the policy ended its thought with this very token; empty if no answer follows that token."""
        return (stop_token_id, *self.natural_opening) if stop_token_id in self.close_ids else ()

    def answer_limit(self, answer_tokens: int, forced: bool) -> int:
        """Most tokens of an answer. answer_tokens: of one that is opened. forced: as in `answer_text`."""
        return answer_tokens if forced or self.free_answer_tokens is None else self.free_answer_tokens

    def answer_length(self, answer: Tokens) -> int:
        """How many tokens of a sampled answer are one, with the token that ends it; the rest is dropped."""
        return len(answer)

    def answer_text(self, text: str, ended: bool, forced: bool) -> str:
        """What to grade of an answer's decoded text; empty if it is none.

        ended: a stop token ended it. forced: it follows the stop phrase, not the policy's own `close`.
        """
        return text if ended else ""


class TemplateParams(Params):
    """A template in words, as configured and as saved with a policy. kind: its form."""

    kind: str
    streams_answer: ClassVar[bool] = False

    @property
    def writes_freely(self) -> bool:
        """See `Template`."""
        return False

    def bind(self, tokenizer: PreTrainedTokenizerBase) -> Template:
        """The template in the tokens of `tokenizer`. Raises ValueError (InputError) for strings that do not fit it."""
        raise NotImplementedError


class SymbolThinkParams(TemplateParams):
    """`ThinkTemplate` in words, each of them one symbol."""

    kind: Literal["symbols_think"] = "symbols_think"
    close: str = Field(description="symbol that ends a thought")
    stop_phrase: str = Field(description="put after a thought that is cut short")
    extensions: tuple[str, ...] = Field(description="put in place of a stop when the thought is forced on, in turn")
    markers: tuple[str, ...] = Field(description="symbols that open an episode")

    def bind(self, tokenizer: PreTrainedTokenizerBase) -> ThinkTemplate:
        """See `TemplateParams`."""
        eos_id = tokenizer.eos_token_id
        return ThinkTemplate(
            eos_id=eos_id,
            close_ids=(_single(tokenizer, self.close),),
            stop_phrase=_encode(tokenizer, self.stop_phrase),
            answer_end=(eos_id,),
            extensions=tuple(_encode(tokenizer, extension) for extension in self.extensions),
            marker_ids=frozenset(_single(tokenizer, marker) for marker in self.markers),
        )


class SymbolBacktrackParams(TemplateParams):
    """`BacktrackTemplate` in words, each of them one symbol."""

    kind: Literal["symbols_backtrack"] = "symbols_backtrack"
    streams_answer: ClassVar[bool] = True
    back: tuple[str, ...] = Field(min_length=1, description="symbols that end an episode, first 'from the start'")

    def bind(self, tokenizer: PreTrainedTokenizerBase) -> BacktrackTemplate:
        """See `TemplateParams`."""
        back_ids = tuple(_single(tokenizer, symbol) for symbol in self.back)
        return BacktrackTemplate(eos_id=tokenizer.eos_token_id, extensions=(back_ids[:1],), back_ids=back_ids)


@dataclass(frozen=True, kw_only=True)
class ThinkTemplate(Template):
    """Open-ended thinking in symbols, `prompt + thought + close + answer + eos`. marker_ids: open a new episode."""

    marker_ids: frozenset[int]

    def boundaries(self, thought: Tokens, logprobs: Sequence[float] | np.ndarray = ()) -> np.ndarray:
        """See `Template`."""
        return episode_boundaries(thought, self.marker_ids)


@dataclass(frozen=True, kw_only=True)
class Backtracking(Template):
    """Backtracking search, `prompt + attempt + back + attempt + back + ... + attempt + eos`.

    The thought ends with the last `back`, the answer is the attempt after it. To force an answer is to let the policy
    make its next attempt, without a stop phrase, until eos or going back again. An attempt that the budget cuts is
    dropped, as the paper drops an unfinished paragraph. In budget forcing 'back to the start' replaces eos.
    """

    streams_answer: ClassVar[bool] = True

    @abstractmethod
    def ends(self, thought: Tokens) -> list[int]:
        """Numbers of tokens after which going back is complete, ascending."""

    def boundaries(self, thought: Tokens, logprobs: Sequence[float] | np.ndarray = ()) -> np.ndarray:
        """See `Template`."""
        return np.unique([0, *self.ends(thought), len(thought)]).astype(np.int64)

    def snap(self, thought: Tokens, cut: int, finished: Sequence[int] = ()) -> int:
        """The last boundary at or before `cut`: 0, or just after going back."""
        return max([0, *self.ends(thought[:cut])])


@dataclass(frozen=True, kw_only=True)
class BacktrackTemplate(Backtracking):
    """Backtracking search in symbols. back_ids: tokens that close an episode, each naming the step to go back to."""

    back_ids: tuple[int, ...]

    @property
    def answer_stops(self) -> tuple[int, ...]:
        """The end of the trace, or going back: an attempt ends at either."""
        return (self.eos_id, *self.back_ids)

    def ends(self, thought: Tokens) -> list[int]:
        """See `Backtracking`."""
        return [i + 1 for i, token in enumerate(thought) if token in self.back_ids]


def encode_prompt(tokenizer: PreTrainedTokenizerBase, template: Template, question: str) -> list[int]:
    """The question in the policy's chat template, after the template's messages, up to the opening of the thought."""
    messages = [*template.messages, ("user", question + template.suffix)]
    chat = [{"role": role, "content": text} for role, text in messages]
    text = tokenizer.apply_chat_template(chat, tokenize=False, add_generation_prompt=True)
    return tokenizer.encode(f"{text}{template.opening}", add_special_tokens=False)


def _encode(tokenizer: PreTrainedTokenizerBase, text: str) -> tuple[int, ...]:
    ids = tokenizer.encode(text, add_special_tokens=False)
    if not ids or tokenizer.unk_token_id in ids:
        raise ValueError(f"the tokenizer does not know {text!r}; check the policy's template")
    return tuple(ids)


def _single(tokenizer: PreTrainedTokenizerBase, text: str) -> int:
    ids = _encode(tokenizer, text)
    if len(ids) != 1:
        raise ValueError(f"{text!r} must be one token of this policy's tokenizer, but is {len(ids)}")
    return ids[0]


def build_symbol_tokenizer(
    symbols: Sequence[str], markers: Sequence[str] = (THINK_OPEN, THINK_CLOSE)
) -> PreTrainedTokenizerFast:
    """A tokenizer with one id for each whitespace-separated symbol, with a chat template that opens a thought.

    symbols: distinct. markers: symbols around a thought; the chat template ends with the first one.
    """
    from tokenizers import Tokenizer
    from tokenizers.models import WordLevel
    from tokenizers.pre_tokenizers import WhitespaceSplit
    from transformers import PreTrainedTokenizerFast

    vocabulary = [*_SPECIAL.values(), *markers, *symbols]
    if len(set(vocabulary)) != len(vocabulary):
        raise ValueError("symbols must be distinct and must not repeat special tokens")
    backend = Tokenizer(WordLevel({symbol: i for i, symbol in enumerate(vocabulary)}, unk_token="<unk>"))
    backend.pre_tokenizer = WhitespaceSplit()
    tokenizer = PreTrainedTokenizerFast(tokenizer_object=backend, clean_up_tokenization_spaces=False, **_SPECIAL)
    tokenizer.chat_template = _CHAT_TEMPLATE.replace("OPENING", markers[0])
    return tokenizer
