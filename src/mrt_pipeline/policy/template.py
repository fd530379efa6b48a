"""How a policy thinks and answers: the tokens around the thought, and where a thought may be cut.

A template is given in words (`TemplateParams`), which are saved with the policy, and bound to its tokenizer. Two forms.
`ThinkTemplate` is open-ended thinking: markers open episodes, `</think>` ends the thought, and the answer follows it.
`BacktrackTemplate` is backtracking search: every attempt answers, back symbols separate them, and the last attempt of
the stream is the answer.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar, Literal, Protocol

import numpy as np
from pydantic import Field
from transformers import PreTrainedTokenizerBase

from mrt_pipeline.mrt.episodes import closed_boundaries, episode_boundaries
from mrt_pipeline.registry import Params


@dataclass(frozen=True)
class Split:
    """A sampled stream, divided into thought and answer.

    n_thought: its first so many tokens are the thought. close: ids that follow the thought. stop_reason: as in Rollout.
    answered: what is left of the stream, with its stop token, is the answer; otherwise an answer is to be sampled after
        thought and close, and what is left is dropped.
    """

    n_thought: int
    close: tuple[int, ...]
    stop_reason: str
    answered: bool


class Template(Protocol):
    """Token ids that structure a trace `prompt + thought + close + answer`, and what follows from them.

    eos_id: ends the trace. thinking_stops, answer_stops: tokens that end a sampled stream, and a sampled answer.
    close: between thought and answer where the policy itself ends its thought: the token that it ends it with, and what
        is put in after that. stop_phrase: the same where an answer is forced.
    answer_end: what the exact prover expects after an accepted answer.
    writes_freely: after its own `close` the policy writes what it likes, so the probability of that is not the
        probability of an accepted answer.
    extensions: put in place of a stop when the thought is forced on (budget forcing), in turn.
    streams_answer: the policy answers in the stream itself, so the reward of an answer is known where it tries to stop.
    messages, suffix, opening: of a chat, what stands before the question, what is put after it, and what opens the
        thought; see `encode_prompt`.
    """

    eos_id: int
    thinking_stops: tuple[int, ...]
    answer_stops: tuple[int, ...]
    close: tuple[int, ...]
    stop_phrase: tuple[int, ...]
    answer_end: tuple[int, ...]
    writes_freely: bool
    extensions: tuple[tuple[int, ...], ...]
    streams_answer: bool
    messages: tuple[dict[str, str], ...]
    suffix: str
    opening: str

    def boundaries(self, thought: Sequence[int], logprobs: Sequence[float]) -> np.ndarray:
        """Prefix lengths at which an episode of the thought ends, int64: first 0, last len(thought).

        logprobs: log-probability of each token when it was sampled, for segmentations that look for uncertainty.
        """
        ...

    def snap(self, thought: Sequence[int], cut: int, finished: Sequence[int] = ()) -> int:
        """The last place at or before `cut` thinking tokens where an answer can be forced. The only rule for cuts.

        finished: numbers of tokens after which an answer can be forced whatever the thought looks like there: where the
            policy itself tried to stop, and the end of what was cut already. Only templates that drop unfinished
            paragraphs need to be told.
        """
        ...

    def split(self, stream: Sequence[int], stop_token_id: int | None, finished: Sequence[int] = ()) -> Split:
        """Divide a stream that ended with this stop token, or by length (None). finished: as in `snap`."""
        ...

    def natural_close(self, stop_token_id: int) -> tuple[int, ...]:
        """`close`, where the policy ended its thought with this very token; empty if no answer follows that token."""
        ...

    def answer_limit(self, answer_tokens: int, forced: bool) -> int:
        """Most tokens of an answer. answer_tokens: of one that is opened. forced: as in `answer_text`."""
        ...

    def answer_length(self, answer: Sequence[int]) -> int:
        """How many tokens of a sampled answer are one, with the token that ends it; the rest is dropped."""
        ...

    def answer_text(self, text: str, ended: bool, forced: bool) -> str:
        """What to grade of an answer's decoded text; empty if it is none.

        ended: a stop token ended it. forced: it follows the stop phrase, not the policy's own `close`.
        """
        ...


class TemplateParams(Params):
    """A template in words, as configured and as saved with a policy. kind: its form."""

    kind: str

    @property
    def writes_freely(self) -> bool:
        """See `Template`."""
        return False

    @property
    def streams_answer(self) -> bool:
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

    def bind(self, tokenizer: PreTrainedTokenizerBase) -> "ThinkTemplate":
        """See `TemplateParams.bind`."""
        return ThinkTemplate.from_text(tokenizer, self.close, self.stop_phrase, self.extensions, self.markers)


class SymbolBacktrackParams(TemplateParams):
    """`BacktrackTemplate` in words, each of them one symbol."""

    kind: Literal["symbols_backtrack"] = "symbols_backtrack"
    back: tuple[str, ...] = Field(description="symbols that end an episode, the first one 'from the start'")

    @property
    def streams_answer(self) -> bool:
        """See `Template`."""
        return True

    def bind(self, tokenizer: PreTrainedTokenizerBase) -> "BacktrackTemplate":
        """See `TemplateParams.bind`."""
        return BacktrackTemplate.from_text(tokenizer, self.back)


@dataclass(frozen=True)
class ThinkTemplate:
    """Open-ended thinking, `prompt + thought + close + answer + eos`; see `Template`.

    close_id: the token that ends a thought, `</think>`; the model samples it when it has thought enough.
    stop_phrase: put after a thought that is cut short; ends with close_id or goes past it.
    marker_ids: tokens that open a new episode.
    """

    close_id: int
    eos_id: int
    stop_phrase: tuple[int, ...]
    extensions: tuple[tuple[int, ...], ...]
    marker_ids: frozenset[int]
    writes_freely: ClassVar[bool] = False
    streams_answer: ClassVar[bool] = False
    messages: ClassVar[tuple[dict[str, str], ...]] = ()
    suffix: ClassVar[str] = ""
    opening: ClassVar[str] = ""

    @classmethod
    def from_text(
        cls,
        tokenizer: PreTrainedTokenizerBase,
        think_close: str,
        stop_phrase: str,
        extensions: Sequence[str],
        episode_markers: Sequence[str],
    ) -> "ThinkTemplate":
        """Build from strings. Raises ValueError where a string that must be one token is none."""
        return cls(
            close_id=_single(tokenizer, think_close),
            eos_id=tokenizer.eos_token_id,
            stop_phrase=_encode(tokenizer, stop_phrase),
            extensions=tuple(_encode(tokenizer, extension) for extension in extensions),
            marker_ids=frozenset(_single(tokenizer, marker) for marker in episode_markers),
        )

    @property
    def thinking_stops(self) -> tuple[int, ...]:
        """The end of the thought, and the end of the trace."""
        return (self.close_id, self.eos_id)

    @property
    def answer_stops(self) -> tuple[int, ...]:
        """The end of the trace."""
        return (self.eos_id,)

    @property
    def close(self) -> tuple[int, ...]:
        """The end of the thought."""
        return (self.close_id,)

    @property
    def answer_end(self) -> tuple[int, ...]:
        """The end of the trace."""
        return (self.eos_id,)

    def boundaries(self, thought: Sequence[int], logprobs: Sequence[float] = ()) -> np.ndarray:
        """See `Template.boundaries`."""
        return episode_boundaries(thought, self.marker_ids)

    def snap(self, thought: Sequence[int], cut: int, finished: Sequence[int] = ()) -> int:
        """`cut` itself: a thought can be stopped after any token."""
        return int(cut)

    def split(self, stream: Sequence[int], stop_token_id: int | None, finished: Sequence[int] = ()) -> Split:
        """See `Template.split`. A trace that ends inside its thought answers with nothing."""
        if stop_token_id is None:
            return Split(len(stream), self.stop_phrase, "length", False)
        if close := self.natural_close(stop_token_id):
            return Split(len(stream), close, "stop", False)
        return Split(len(stream), (), "eos", True)

    def natural_close(self, stop_token_id: int) -> tuple[int, ...]:
        """See `Template.natural_close`."""
        return self.close if stop_token_id == self.close_id else ()

    def answer_limit(self, answer_tokens: int, forced: bool) -> int:
        """The same for all."""
        return answer_tokens

    def answer_length(self, answer: Sequence[int]) -> int:
        """All: a token ends it."""
        return len(answer)

    def answer_text(self, text: str, ended: bool, forced: bool) -> str:
        """An answer that did not end is none."""
        return text if ended else ""


@dataclass(frozen=True)
class BacktrackTemplate:
    """Backtracking search, `prompt + attempt + back + attempt + back + ... + attempt + eos`; see `Template`.

    The thought is everything up to and including the last back symbol, the answer is the attempt after it. Forcing an
    answer is to let the policy make its next attempt, so there is no stop phrase; whether such an attempt ends by eos
    or by going back again does not matter. An attempt that the budget cuts is dropped, as the paper drops an unfinished
    paragraph: an answer can be forced after back symbols only.

    eos_id: the policy stops; the attempt before it is its answer.
    back_ids: tokens that close an episode, each naming the step to go back to; the first one is 'from the start', which
        is put in place of eos in budget forcing.
    """

    eos_id: int
    back_ids: tuple[int, ...]
    close: ClassVar[tuple[int, ...]] = ()
    stop_phrase: ClassVar[tuple[int, ...]] = ()
    answer_end: ClassVar[tuple[int, ...]] = ()
    writes_freely: ClassVar[bool] = False
    streams_answer: ClassVar[bool] = True
    messages: ClassVar[tuple[dict[str, str], ...]] = ()
    suffix: ClassVar[str] = ""
    opening: ClassVar[str] = ""

    @classmethod
    def from_text(cls, tokenizer: PreTrainedTokenizerBase, back: Sequence[str]) -> "BacktrackTemplate":
        """Build from the back symbols. Raises ValueError if there is none, or if one is not a token."""
        if not back:
            raise ValueError("a backtracking template needs at least the back symbol of the start")
        return cls(tokenizer.eos_token_id, tuple(_single(tokenizer, symbol) for symbol in back))

    @property
    def thinking_stops(self) -> tuple[int, ...]:
        """The end of the trace."""
        return (self.eos_id,)

    @property
    def answer_stops(self) -> tuple[int, ...]:
        """The end of the trace, or going back: an attempt ends at either."""
        return (self.eos_id, *self.back_ids)

    @property
    def extensions(self) -> tuple[tuple[int, ...], ...]:
        """Go back to the start."""
        return (self.back_ids[:1],)

    def boundaries(self, thought: Sequence[int], logprobs: Sequence[float] = ()) -> np.ndarray:
        """See `Template.boundaries`."""
        return closed_boundaries(thought, self.back_ids)

    def snap(self, thought: Sequence[int], cut: int, finished: Sequence[int] = ()) -> int:
        """The last boundary at or before `cut`: 0, or just after a back symbol."""
        backs = np.flatnonzero(np.isin(np.asarray(thought[:cut], dtype=np.int64), self.back_ids))
        return int(backs[-1]) + 1 if len(backs) else 0

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
        """All: a token ends it."""
        return len(answer)

    def answer_text(self, text: str, ended: bool, forced: bool) -> str:
        """An answer that did not end is none."""
        return text if ended else ""


def encode_prompt(tokenizer: PreTrainedTokenizerBase, template: Template, question: str) -> list[int]:
    """The question in the policy's chat template, after the template's messages, up to the opening of the thought."""
    messages = [*template.messages, {"role": "user", "content": question + template.suffix}]
    text = tokenizer.apply_chat_template(messages, tokenize=False, add_generation_prompt=True)
    return tokenizer.encode(text + template.opening, add_special_tokens=False)


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
