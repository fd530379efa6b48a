"""What the learner trains on: token sequences with one weight for each token, and micro-batches of them.

Sequences can share their prompt, so that it is computed once instead of n times: a row is then `prompt without its last
token | last token, rollout | last token, rollout | ...`. Every rollout sees the prompt and itself, at the positions it
would have alone, so losses and gradients are those of separate rows (the idea of Prefix Grouper, arXiv 2506.05433). The
mask takes rows x length^2 bytes, so this is for long prompts with short thoughts, as prompts with worked examples.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import torch


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

    sequences: what it holds. places: for each its row, and where its first token after the prompt is among the columns.
    inputs: of the model. input_ids (rows, length); position_ids (rows, length) and attention_mask bool
        (rows, 1, length, length) only if prompts are shared: causal attention never looks ahead to the padding.
    targets, weights, trained, logprobs: (rows, kept); logprobs may be None.
    """

    sequences: Sequence[TrainingSequence]
    places: Sequence[tuple[int, int]]
    inputs: dict[str, torch.Tensor]
    targets: torch.Tensor
    weights: torch.Tensor
    trained: torch.Tensor
    logprobs: torch.Tensor | None = None

    def parts(self, table: torch.Tensor) -> Iterator[tuple[TrainingSequence, np.ndarray]]:
        """Each sequence with its (n,) numbers of a table (rows, kept)."""
        numbers = table.cpu().numpy()
        for sequence, (row, start) in zip(self.sequences, self.places, strict=True):
            yield sequence, numbers[row, start : start + len(sequence.trained)]


def collate(
    sequences: Sequence[TrainingSequence], device: torch.device | str = "cpu", share_prompts: bool = False
) -> MicroBatch:
    """Pad sequences to a rectangle: a row for each, or one for each distinct prompt."""
    with_logprobs = sequences[0].logprobs is not None
    if any((sequence.logprobs is not None) != with_logprobs for sequence in sequences):
        raise ValueError("either all sequences of a batch have logprobs, or none has")
    rows = _rows(sequences, share_prompts)
    shape = (len(rows), max(map(_length, rows)))
    first = max(1, min(sequence.prompt_length for sequence in sequences))  # of the kept columns
    ids, targets, positions = np.zeros((3, *shape), np.int64)
    part = np.full(shape, -1)  # 0: prompt, 1...: the rollouts, -1: padding
    weights, logprobs = np.zeros((2, *shape), np.float32)
    trained = np.zeros(shape, bool)
    places = []
    for i, row in enumerate(rows):
        seam = end = _seam(row)
        ids[i, :end] = targets[i, :end] = row[0].token_ids[:end]
        positions[i, :end], part[i, :end] = np.arange(end), 0
        for number, sequence in enumerate(row, start=1):
            start, end = end, end + len(sequence.token_ids) - seam
            ids[i, start:end] = targets[i, start:end] = sequence.token_ids[seam:]
            positions[i, start:end], part[i, start:end] = np.arange(seam, len(sequence.token_ids)), number
            rest = slice(end - len(sequence.trained), end)
            weights[i, rest], trained[i, rest], targets[i, rest] = sequence.weights, sequence.trained, sequence.targets
            if sequence.logprobs is not None:
                logprobs[i, rest] = sequence.logprobs
            places.append((i, rest.start - first))
    inputs = {"input_ids": ids}
    if share_prompts:
        seen = (part[:, :, None] == part[:, None, :]) | (part[:, None, :] == 0)
        inputs |= {"position_ids": positions, "attention_mask": (seen & np.tri(shape[1], dtype=bool))[:, None]}
    kept: dict[str, np.ndarray] = {"targets": targets, "weights": weights, "trained": trained}
    if with_logprobs:
        kept["logprobs"] = logprobs

    def on_device(table: np.ndarray) -> torch.Tensor:
        return torch.from_numpy(np.ascontiguousarray(table)).to(device)

    return MicroBatch(
        [sequence for row in rows for sequence in row],
        places,
        {name: on_device(table) for name, table in inputs.items()},
        **{name: on_device(table[:, first:]) for name, table in kept.items()},
    )


def micro_batches(
    sequences: Sequence[TrainingSequence], max_tokens: int, share_prompts: bool = False
) -> list[list[TrainingSequence]]:
    """Sort rows by length and cut into groups of at most `max_tokens` padded tokens (one row may exceed it alone)."""
    groups: list[list[list[TrainingSequence]]] = []
    for row in sorted(_rows(sequences, share_prompts), key=_length, reverse=True):
        if groups and (len(groups[-1]) + 1) * _length(groups[-1][0]) <= max_tokens:
            groups[-1].append(row)
        else:
            groups.append([row])
    return [[sequence for row in group for sequence in row] for group in groups]


def _rows(sequences: Sequence[TrainingSequence], share_prompts: bool) -> list[list[TrainingSequence]]:
    """All sequences of a prompt as one row, or each as its own."""
    if not share_prompts:
        return [[sequence] for sequence in sequences]
    rows: dict[bytes, list[TrainingSequence]] = {}
    for sequence in sequences:
        rows.setdefault(sequence.token_ids[: sequence.prompt_length].tobytes(), []).append(sequence)
    return list(rows.values())


def _seam(row: Sequence[TrainingSequence]) -> int:
    """Where the first sequence of a row goes apart from the prompt: at the last token of that, which is repeated."""
    return max(1, row[0].prompt_length) - 1


def _length(row: Sequence[TrainingSequence]) -> int:
    return _seam(row) + sum(len(sequence.token_ids) - _seam(row) for sequence in row)
