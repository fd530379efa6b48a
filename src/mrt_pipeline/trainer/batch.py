"""What the learner trains on: token sequences with one weight for each token."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TypeVar

import numpy as np
import torch

Row = TypeVar("Row")


@dataclass(frozen=True)
class TrainingSequence:
    """One sequence of p prompt tokens and n further ones.

    token_ids: (p + n,). prompt_length: p; the prompt is never trained.
    weights: (n,) credit of each choice. trained: bool (n,), False where the policy did not choose.
    logprobs: (n,) of the choices under the policy that made them, or None for likelihood training.
    choices: (n,) what is trained at each place: the token that stands there, or a stop that something was put in place
        of; ignored where `trained` is False. None: always the token that stands there.
    """

    token_ids: np.ndarray
    prompt_length: int
    weights: np.ndarray
    trained: np.ndarray
    logprobs: np.ndarray | None = None
    choices: np.ndarray | None = None

    @property
    def targets(self) -> np.ndarray:
        """(n,) the choices, and the token that stands there where nothing is trained."""
        standing = self.token_ids[self.prompt_length :]
        return standing if self.choices is None else np.where(self.trained, self.choices, standing)


@dataclass(frozen=True)
class MicroBatch:
    """Sequences padded on the right. `targets` belong to the last `kept` columns, whose logits are needed.

    token_ids: (rows, length). targets, weights, trained, logprobs: (rows, kept); logprobs may be None.
    places: for each sequence, its row and where its first token after the prompt stands among the kept columns.
    position_ids (rows, length), attention_mask bool (rows, 1, length, length): None for a plain causal pass.
    """

    token_ids: torch.Tensor
    targets: torch.Tensor
    weights: torch.Tensor
    trained: torch.Tensor
    logprobs: torch.Tensor | None
    places: Sequence[tuple[int, int]]
    position_ids: torch.Tensor | None = None
    attention_mask: torch.Tensor | None = None

    @property
    def inputs(self) -> dict[str, torch.Tensor]:
        """Arguments of the model."""
        given = {
            "input_ids": self.token_ids,
            "position_ids": self.position_ids,
            "attention_mask": self.attention_mask,
        }
        return {name: value for name, value in given.items() if value is not None}


def collate(sequences: Sequence[TrainingSequence], device: torch.device | str = "cpu") -> MicroBatch:
    """Pad sequences to a rectangle. Right padding needs no attention mask: causal attention never looks ahead."""
    length = max(len(sequence.token_ids) for sequence in sequences)
    first = max(1, min(sequence.prompt_length for sequence in sequences))
    shape = (len(sequences), length)
    ids, targets, trained = (np.zeros(shape, dtype=kind) for kind in (np.int64, np.int64, bool))
    weights, logprobs = np.zeros(shape, dtype=np.float32), np.zeros(shape, dtype=np.float32)
    for row, sequence in enumerate(sequences):
        rest = slice(sequence.prompt_length, len(sequence.token_ids))
        ids[row, : rest.stop] = targets[row, : rest.stop] = sequence.token_ids
        targets[row, rest] = sequence.targets
        weights[row, rest], trained[row, rest] = sequence.weights, sequence.trained
        if sequence.logprobs is not None:
            logprobs[row, rest] = sequence.logprobs
    tensors = [
        torch.from_numpy(a).to(device)
        for a in (
            ids,
            targets[:, first:].copy(),
            weights[:, first:].copy(),
            trained[:, first:].copy(),
            logprobs[:, first:].copy(),
        )
    ]
    with_logprobs = sequences[0].logprobs is not None
    if any((sequence.logprobs is not None) != with_logprobs for sequence in sequences):
        raise ValueError("either all sequences of a batch have logprobs, or none has")
    places = [(row, sequence.prompt_length - first) for row, sequence in enumerate(sequences)]
    return MicroBatch(*tensors[:4], tensors[4] if with_logprobs else None, places)


def micro_batches(sequences: Sequence[TrainingSequence], max_tokens: int) -> list[list[TrainingSequence]]:
    """Sort by length and cut into groups of at most `max_tokens` padded tokens (one sequence may exceed it alone)."""
    return padded_groups(sequences, lambda sequence: len(sequence.token_ids), max_tokens)


def padded_groups(rows: Sequence[Row], length: Callable[[Row], int], max_tokens: int) -> list[list[Row]]:
    """Sort rows by length and cut into groups of at most `max_tokens` padded tokens (one row may exceed it alone)."""
    groups: list[list[Row]] = []
    for row in sorted(rows, key=length, reverse=True):
        if groups and (len(groups[-1]) + 1) * length(groups[-1][0]) <= max_tokens:
            groups[-1].append(row)
        else:
            groups.append([row])
    return groups
