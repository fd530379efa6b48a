"""Sampling and scoring by vLLM requests, wherever vLLM runs: in this process (`vllm_engine.py`) or as a server.

A request is a prompt and vLLM's own sampling parameters as plain values, so that it can go to vLLM in this process or
over HTTP. vLLM takes long to start and fills a GPU, so that a process has one, a `Backend`, and its engines share it:
each samples from one policy for good, and hands that policy's weights over where the backend holds another's.
"""

from __future__ import annotations

import weakref
from abc import ABC, abstractmethod
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import product
from typing import TYPE_CHECKING, Any

import numpy as np

from mrt_pipeline.engines.base import Completion, SamplingParams, check_cuts
from mrt_pipeline.mrt.episodes import Tokens

if TYPE_CHECKING:
    from mrt_pipeline.policy.language_model import Model

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


class Backend(ABC):
    """vLLM with the weights of one model at a time. held: which one that is; None: not known."""

    held: weakref.ref[Model] | None = None

    @abstractmethod
    def take(self, model: Model) -> None:
        """Take over the model's current weights, LoRA merged in, and drop what was cached under others."""

    @abstractmethod
    def generate(self, prompts: list[list[int]], params: list[dict[str, Any]]) -> list[Generated]:
        """What each request gives; params: vLLM's SamplingParams by name."""


class VLLMEngine:
    """See `Engine`. model: the trainer's module that it samples from. backend: where vLLM runs."""

    shares_weights = False

    def __init__(self, model: Model, backend: Backend):
        self.model, self.backend = model, backend
        backend.held = None  # if it is this very model, it may have been trained since

    def update_weights(self) -> None:
        """Hand the model's current weights over, LoRA merged in."""
        self.backend.held = None  # nothing is known of what is there if this fails halfway
        self.backend.take(self.model)
        self.backend.held = weakref.ref(self.model)

    def _generate(self, prompts: list[list[int]], params: list[dict[str, Any]]) -> list[Generated]:
        if self.backend.held is None or self.backend.held() is not self.model:
            self.update_weights()
        return self.backend.generate(prompts, params)

    def sample(
        self,
        prompts: Sequence[Tokens],
        params: SamplingParams,
        seed: int,
        min_tokens: int | Tokens = 0,
        max_tokens: Tokens | None = None,
    ) -> list[Completion]:
        """See `Engine.sample`. A completion that is forced on goes through the engine again, from its cached prefix."""
        rows = params.rows(len(prompts), min_tokens, max_tokens)
        starts = [[int(token) for token in prompt] for prompt in prompts for _ in range(params.n)]
        seeds = np.random.default_rng(seed)
        while running := [(start, row) for start, row in zip(starts, rows, strict=True) if not row.ended]:
            drawn = seeds.integers(2**62, size=len(running)).tolist()
            requests = [
                _request(
                    params.temperature,
                    row.most - len(row.tokens) + 1,  # one more, which may only be a stop token
                    number,
                    stop_token_ids=list(params.stop_token_ids),
                    logprobs=0,
                )
                for (_, row), number in zip(running, drawn, strict=True)
            ]
            outputs = self._generate([[*start, *row.tokens] for start, row in running], requests)
            for (_, row), output in zip(running, outputs, strict=True):
                for token, logprob in zip(output.token_ids, output.logprobs, strict=True):
                    row.take(token, logprob)
        return [row.completion() for row in rows]

    def score(
        self,
        traces: Sequence[Tokens],
        cuts: Sequence[Tokens],
        suffix: Tokens,
        continuations: Sequence[Sequence[Tokens]],
        temperature: float = 1.0,
    ) -> list[np.ndarray]:
        """See `Engine.score`. One request of one token for each distinct beginning, all from cached prefixes.

        vLLM's prompt_logprobs would need one request a continuation, but bypass the prefix cache: five times slower.
        """
        wanted: defaultdict[tuple[int, ...], set[int]] = defaultdict(set)
        for trace, cut, answers in zip(traces, cuts, continuations, strict=True):
            check_cuts(trace, cut)
            for k, answer in product(cut, answers):
                for prefix, token in _steps(trace, k, suffix, answer):
                    wanted[prefix].add(token)
        found = self._next_logprobs(wanted, temperature)
        result = []
        for trace, cut, answers in zip(traces, cuts, continuations, strict=True):
            scores = np.zeros((len(cut), len(answers)))
            for (row, k), (column, answer) in product(enumerate(cut), enumerate(answers)):
                scores[row, column] = sum(found[step] for step in _steps(trace, k, suffix, answer))
            result.append(scores)
        return result

    def _next_logprobs(
        self, wanted: Mapping[tuple[int, ...], set[int]], temperature: float
    ) -> dict[tuple[tuple[int, ...], int], float]:
        """log p(token | prefix) for each prefix and each of its tokens."""
        at_once = min(_LOGPROB_IDS, self.model.config.vocab_size - 1)  # a server is asked for one more than that
        asked = [
            (prefix, sorted(tokens)[start : start + at_once])
            for prefix, tokens in wanted.items()
            for start in range(0, len(tokens), at_once)
        ]
        requests = [_request(temperature, 1, 0, logprob_token_ids=tokens) for _, tokens in asked]
        outputs = self._generate([list(prefix) for prefix, _ in asked], requests)
        return {
            (prefix, token): output.asked[token]
            for (prefix, tokens), output in zip(asked, outputs, strict=True)
            for token in tokens
        }


def _request(temperature: float, max_tokens: int, seed: int, **more: Any) -> dict[str, Any]:
    """vLLM's SamplingParams by name. The end token is one of the stop tokens, or none."""
    asked = {"temperature": temperature, "max_tokens": max_tokens, "seed": seed}
    return {**asked, "ignore_eos": True, "detokenize": False, **more}


def _steps(trace: Tokens, cut: int, suffix: Tokens, answer: Tokens) -> Iterator[tuple[tuple[int, ...], int]]:
    """What stands before each token of a continuation, and that token."""
    start = (*map(int, trace[:cut]), *map(int, suffix))
    for j, token in enumerate(answer):
        yield (*start, *map(int, answer[:j])), int(token)
