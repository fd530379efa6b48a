"""Micro-batches in which the rollouts of a problem share their prompt, so that it is computed once instead of n times.

A row is `prompt without its last token | last token, rollout | last token, rollout | ...`. Every rollout sees the
prompt and itself, at the positions it would have alone, so losses and gradients are those of separate rows (the idea of
Prefix Grouper, arXiv 2506.05433). The mask takes rows x length^2 bytes, so this is for long prompts with short
thoughts, as prompts with worked examples.
"""

from collections.abc import Sequence

import numpy as np
import torch

from mrt_pipeline.trainer.batch import MicroBatch, TrainingSequence, padded_groups


def shared_micro_batches(sequences: Sequence[TrainingSequence], max_tokens: int) -> list[list[TrainingSequence]]:
    """Cut into groups of at most `max_tokens` padded tokens when their prompts are shared.

    Sequences of one prompt stay together; one row may exceed the limit alone.
    """
    groups = padded_groups(_rows(sequences), _length, max_tokens)
    return [[sequence for row in group for sequence in row] for group in groups]


def collate_shared(sequences: Sequence[TrainingSequence], device: torch.device | str = "cpu") -> MicroBatch:
    """One row for each distinct prompt; `places` are in the order of `sequences`, which must stand by prompt."""
    rows = _rows(sequences)
    shape = (len(rows), max(_length(row) for row in rows))
    first = max(1, min(row[0].prompt_length for row in rows))  # a place's column in the row is `first` more
    ids, targets, positions = (np.zeros(shape, dtype=np.int64) for _ in range(3))
    part = np.full(shape, -1)  # 0: prompt, 1...: the rollouts, -1: padding
    weights, logprobs = np.zeros(shape, dtype=np.float32), np.zeros(shape, dtype=np.float32)
    trained = np.zeros(shape, dtype=bool)
    with_logprobs = sequences[0].logprobs is not None
    places = []
    for i, row in enumerate(rows):
        prompt = row[0].prompt_length
        end = prompt - 1
        ids[i, :end], positions[i, :end], part[i, :end] = row[0].token_ids[:end], np.arange(end), 0
        for number, sequence in enumerate(row, start=1):
            if (sequence.logprobs is not None) != with_logprobs:
                raise ValueError("either all sequences of a batch have logprobs, or none has")
            start, end = end, end + len(sequence.token_ids) - prompt + 1
            ids[i, start:end] = sequence.token_ids[prompt - 1 :]
            positions[i, start:end] = np.arange(prompt - 1, len(sequence.token_ids))
            part[i, start:end] = number
            rest = slice(start + 1, end)
            weights[i, rest], trained[i, rest], targets[i, rest] = sequence.weights, sequence.trained, sequence.targets
            if sequence.logprobs is not None:
                logprobs[i, rest] = sequence.logprobs
            places.append((i, start + 1 - first))
    same = part[:, :, None] == part[:, None, :]
    visible = (same | (part[:, None, :] == 0)) & np.tri(shape[1], dtype=bool)
    kept = [a[:, first:] for a in (targets, weights, trained, logprobs)]
    tensors = [torch.from_numpy(np.ascontiguousarray(a)).to(device) for a in (ids, *kept, positions, visible)]
    return MicroBatch(
        *tensors[:4],
        tensors[4] if with_logprobs else None,
        places,
        position_ids=tensors[5],
        attention_mask=tensors[6][:, None],
    )


def _rows(sequences: Sequence[TrainingSequence]) -> list[list[TrainingSequence]]:
    rows: dict[bytes, list[TrainingSequence]] = {}
    for sequence in sequences:
        prompt = np.asarray(sequence.token_ids[: sequence.prompt_length], dtype=np.int64)
        rows.setdefault(prompt.tobytes(), []).append(sequence)
    return list(rows.values())


def _length(row: Sequence[TrainingSequence]) -> int:
    prompt = row[0].prompt_length
    return prompt - 1 + sum(len(sequence.token_ids) - prompt + 1 for sequence in row)
