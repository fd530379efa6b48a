"""Sampling and scoring by vLLM requests, wherever vLLM runs: in this process (`vllm_engine.py`) or as a server.

A request is a prompt and vLLM's own sampling parameters as plain values, so that it can go to vLLM in this process or
over HTTP. vLLM takes long to start and fills a GPU, so that a process has one, a `Backend`, and its engines share it:
each samples from one policy for good, and hands that policy's weights over where the backend holds another's.
"""

import weakref
from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch

from mrt_pipeline.engines.base import NO_CHOICE, Completion, SamplingParams, StopReason, check_cuts

_LOGPROB_IDS = 64  # next tokens asked for in one request; vLLM allows 128


@dataclass(frozen=True)
class Generated:
    """What one request gave.

    token_ids: sampled tokens, the stop token included. logprobs: of each of them.
    asked: log-probabilities of the tokens asked for at the first place, by token id.
    """

    token_ids: list[int]
    logprobs: list[float]
    asked: Mapping[int, float]


@dataclass
class _Row:
    """One completion in the making."""

    prompt: list[int]
    least: int
    most: int
    tokens: list[int] = field(default_factory=list)
    choices: list[int] = field(default_factory=list)
    logprobs: list[float] = field(default_factory=list)
    natural_length: int | None = None
    turn: int = 0
    stop_token: int | None = None
    stop_logprob: float = 0.0

    def completion(self) -> Completion:
        n = len(self.tokens)
        return Completion(
            token_ids=np.array(self.tokens, dtype=np.int64),
            choices=np.array(self.choices, dtype=np.int64),
            logprobs=np.array(self.logprobs, dtype=np.float32),
            stop_reason=StopReason.LENGTH if self.stop_token is None else StopReason.STOP,
            stop_token_id=self.stop_token,
            stop_logprob=self.stop_logprob,
            natural_length=n if self.natural_length is None else self.natural_length,
        )


class Backend(ABC):
    """vLLM with the weights of one model at a time."""

    def __init__(self) -> None:
        self._held = lambda: None  # a weak reference to the model whose weights it holds

    def holds(self, model: torch.nn.Module) -> bool:
        """Whether it was last given the weights of this model."""
        return self._held() is model

    def take(self, model: torch.nn.Module) -> None:
        """Take over the model's current weights, LoRA merged in, and drop what was cached under others."""
        self._held = lambda: None  # nothing is known of them if this fails halfway
        self._take(model)
        self._held = weakref.ref(model)

    @abstractmethod
    def _take(self, model: torch.nn.Module) -> None: ...

    @abstractmethod
    def generate(self, prompts: list[list[int]], params: list[dict[str, Any]]) -> list[Generated]:
        """What each request gives; params: vLLM's SamplingParams by name."""


class VLLMEngine:
    """See `Engine`. model: the trainer's module that it samples from. backend: where vLLM runs."""

    shares_weights = False

    def __init__(self, model: torch.nn.Module, backend: Backend):
        self.model, self.backend = model, backend
        self._handed_over = False

    def update_weights(self) -> None:
        """Hand the model's current weights over, LoRA merged in."""
        self.backend.take(self.model)
        self._handed_over = True

    def _generate(self, prompts: list[list[int]], params: list[dict[str, Any]]) -> list[Generated]:
        if not (self._handed_over and self.backend.holds(self.model)):
            self.update_weights()
        return self.backend.generate(prompts, params)

    def sample(
        self,
        prompts: Sequence[Sequence[int]],
        params: SamplingParams,
        seed: int,
        min_tokens: int | Sequence[int] = 0,
        max_tokens: Sequence[int] | None = None,
    ) -> list[Completion]:
        """See `Engine.sample`. A completion that is forced on goes through the engine again, from its cached prefix."""
        if not prompts:
            return []
        least, most = params.limits(len(prompts), min_tokens, max_tokens)
        rows = [
            _Row([int(token) for token in prompt], int(least[i]), int(most[i]))
            for i, prompt in enumerate(prompts)
            for _ in range(params.n)
        ]
        seeds = np.random.default_rng(seed)
        running = [row for row in rows if row.most > 0]
        while running:
            drawn = seeds.integers(2**62, size=len(running))
            outputs = self._generate(
                [[*row.prompt, *row.tokens] for row in running],
                [
                    {
                        "temperature": params.temperature,
                        "max_tokens": row.most - len(row.tokens) + 1,  # one more, which may only be a stop token
                        "stop_token_ids": list(params.stop_token_ids),
                        "ignore_eos": True,  # it is one of the stop tokens, or none
                        "logprobs": 0,
                        "seed": int(number),
                        "detokenize": False,
                    }
                    for row, number in zip(running, drawn, strict=True)
                ],
            )
            running = [row for row, output in zip(running, outputs, strict=True) if _continue(row, output, params)]
        return [row.completion() for row in rows]

    def score(
        self,
        traces: Sequence[Sequence[int]],
        cuts: Sequence[Sequence[int]],
        suffix: Sequence[int],
        continuations: Sequence[Sequence[Sequence[int]]],
        temperature: float = 1.0,
    ) -> list[np.ndarray]:
        """See `Engine.score`. One request of one token for each distinct beginning, all from cached prefixes.

        vLLM's prompt_logprobs would need one request a continuation, but bypass the prefix cache: five times slower.
        """
        wanted: dict[tuple[int, ...], set[int]] = {}
        for trace, cut, answers in zip(traces, cuts, continuations, strict=True):
            check_cuts(trace, cut)
            for k in cut:
                for answer in answers:
                    for prefix, token in _steps(trace, int(k), suffix, answer):
                        wanted.setdefault(prefix, set()).add(token)
        found = self._next_logprobs(wanted, temperature)
        return [
            np.array(
                [
                    [sum(found[step] for step in _steps(trace, int(k), suffix, answer)) for answer in answers]
                    for k in cut
                ],
                dtype=np.float64,
            ).reshape(len(cut), len(answers))
            for trace, cut, answers in zip(traces, cuts, continuations, strict=True)
        ]

    def _next_logprobs(
        self, wanted: dict[tuple[int, ...], set[int]], temperature: float
    ) -> dict[tuple[tuple[int, ...], int], float]:
        """log p(token | prefix) for each prefix and each of its tokens."""
        at_once = min(_LOGPROB_IDS, self.model.config.vocab_size - 1)  # a server is asked for one more than that
        asked = [
            (prefix, sorted(tokens)[start : start + at_once])
            for prefix, tokens in wanted.items()
            for start in range(0, len(tokens), at_once)
        ]
        params = [
            {
                "temperature": temperature,
                "max_tokens": 1,
                "ignore_eos": True,
                "logprob_token_ids": tokens,
                "seed": 0,
                "detokenize": False,
            }
            for _, tokens in asked
        ]
        outputs = self._generate([list(prefix) for prefix, _ in asked], params)
        return {
            (prefix, token): output.asked[token]
            for (prefix, tokens), output in zip(asked, outputs, strict=True)
            for token in tokens
        }


def _continue(row: _Row, output: Generated, params: SamplingParams) -> bool:
    """Add a request's tokens to its row. Returns whether the row goes on, having been turned from stopping."""
    tokens, logprobs = list(output.token_ids), output.logprobs
    stop = tokens.pop() if tokens and tokens[-1] in params.stop_token_ids else None
    stop_logprob = logprobs[-1] if stop is not None else 0.0
    left = row.most - len(row.tokens)
    row.tokens += tokens[:left]
    row.choices += tokens[:left]
    row.logprobs += logprobs[: min(left, len(tokens))]
    if stop is None:
        return False
    if len(row.tokens) >= row.least or not params.extensions:
        row.stop_token, row.stop_logprob = stop, stop_logprob
        return False
    if row.natural_length is None:
        row.natural_length = len(row.tokens)
    extension = params.extensions[row.turn % len(params.extensions)]
    put_in = extension[: row.most - len(row.tokens)]
    row.turn += 1
    row.tokens += put_in
    row.choices += [stop, *[NO_CHOICE] * len(put_in)][: len(put_in)]
    row.logprobs += [stop_logprob, *[0.0] * len(put_in)][: len(put_in)]
    # An extension that the maximum cut short ends the row; a whole one leaves room for a stop token, at least.
    return len(put_in) == len(extension)


def _steps(
    trace: Sequence[int], cut: int, suffix: Sequence[int], answer: Sequence[int]
) -> Iterator[tuple[tuple[int, ...], int]]:
    """What stands before each token of a continuation, and that token."""
    start = (*map(int, trace[:cut]), *map(int, suffix))
    for j, token in enumerate(answer):
        yield (*start, *map(int, answer[:j])), int(token)
