import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from mrt_pipeline.trainer.batch import TrainingSequence, collate, micro_batches
from mrt_pipeline.trainer.logprobs import token_logprobs


def sequence(tokens, prompt_length, logprobs=True):
    rest = len(tokens) - prompt_length
    return TrainingSequence(
        np.asarray(tokens),
        prompt_length,
        np.arange(1.0, rest + 1),
        np.arange(rest) % 2 == 0,
        -np.arange(1.0, rest + 1) if logprobs else None,
    )


def test_collate_by_hand():
    batch = collate([sequence([1, 2, 3, 4, 5], 2), sequence([6, 7, 8, 9], 3)])
    assert batch.inputs["input_ids"].tolist() == [[1, 2, 3, 4, 5], [6, 7, 8, 9, 0]]
    assert batch.targets.tolist() == [[3, 4, 5], [8, 9, 0]]
    assert batch.weights.tolist() == [[1, 2, 3], [0, 1, 0]]
    assert batch.trained.tolist() == [[True, False, True], [False, True, False]]
    assert batch.logprobs.tolist() == [[-1, -2, -3], [0, -1, 0]]


def test_without_logprobs_there_are_none():
    assert collate([sequence([1, 2, 3], 1, logprobs=False)]).logprobs is None


@pytest.mark.parametrize("first", [True, False])
def test_a_mix_of_sequences_with_and_without_logprobs_is_refused(first):
    with pytest.raises(ValueError, match="logprobs"):
        collate([sequence([1, 2, 3], 1, logprobs=first), sequence([1, 2, 3], 1, logprobs=not first)])


def test_a_sequence_without_a_prompt_is_trained_from_its_second_token():
    batch = collate([TrainingSequence(np.array([1, 2, 3]), 0, np.ones(3), np.ones(3, bool))])
    assert batch.targets.tolist() == [[2, 3]] and batch.trained.tolist() == [[True, True]]


@given(st.lists(st.integers(1, 30), min_size=1, max_size=20), st.integers(1, 120))
def test_micro_batches_hold_every_sequence_once_within_the_limit(lengths, max_tokens):
    sequences = [sequence([i] * length, 0) for i, length in enumerate(lengths)]
    groups = micro_batches(sequences, max_tokens)
    assert sorted(s.token_ids[0] for group in groups for s in group) == list(range(len(lengths)))
    for group in groups:
        assert len(group) == 1 or len(group) * max(len(s.token_ids) for s in group) <= max_tokens
    flat = [len(s.token_ids) for group in groups for s in group]
    assert flat == sorted(flat, reverse=True)


def test_a_limit_for_all_makes_one_micro_batch():
    assert len(micro_batches([sequence([1] * n, 0) for n in (3, 9, 5)], 27)) == 1
    assert len(micro_batches([sequence([1] * n, 0) for n in (3, 9, 5)], 26)) == 2


def test_padding_does_not_change_a_logprob(letters_policy, all_logprobs):
    rng = np.random.default_rng(0)
    sequences = [sequence(rng.integers(0, 16, size=n), p) for n, p in ((12, 4), (7, 5), (9, 1))]
    with torch.no_grad():
        together, entropy = token_logprobs(letters_policy.model, collate(sequences))
    first = 12 - together.shape[1]
    for row, item in enumerate(sequences):
        full = all_logprobs(letters_policy.model, item.token_ids)
        for position in range(max(1, item.prompt_length), len(item.token_ids)):
            column, expected = position - first, full[position - 1]
            assert float(together[row, column]) == pytest.approx(expected[item.token_ids[position]], abs=1e-4)
            assert float(entropy[row, column]) == pytest.approx(-(np.exp(expected) * expected).sum(), abs=1e-3)
