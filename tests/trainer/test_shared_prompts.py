import numpy as np
import pytest
import torch

from mrt_pipeline.trainer.batch import TrainingSequence, collate, micro_batches
from mrt_pipeline.trainer.learner import Learner, LearnerParams
from mrt_pipeline.trainer.logprobs import token_logprobs

LENGTHS = [(5, [4, 9, 1]), (1, [3, 3]), (8, [6])]  # of prompts, and of the rollouts of each


@pytest.fixture
def sequences():
    rng = np.random.default_rng(0)
    found = []
    for prompt_length, lengths in LENGTHS:
        prompt = rng.integers(1, 16, size=prompt_length)
        for n in lengths:
            found.append(
                TrainingSequence(
                    np.concatenate([prompt, rng.integers(1, 16, size=n)]),
                    prompt_length,
                    rng.normal(size=n),
                    rng.random(n) < 0.8,
                    rng.normal(size=n).astype(np.float32) - 2,
                )
            )
    return found


def test_every_token_has_the_logprob_it_has_alone(letters_policy, sequences):
    batch = collate(sequences, share_prompts=True)
    assert len(batch.inputs["input_ids"]) == len(LENGTHS)
    with torch.no_grad():
        table, _ = token_logprobs(letters_policy.model, batch)
        for (row, start), sequence in zip(batch.places, sequences, strict=True):
            alone, _ = token_logprobs(letters_policy.model, collate([sequence]))
            place = slice(start, start + len(sequence.weights))
            np.testing.assert_allclose(table[row, place], alone[0], atol=1e-4)
            np.testing.assert_array_equal(batch.targets[row, place], sequence.token_ids[sequence.prompt_length :])
            np.testing.assert_array_equal(batch.trained[row, place], sequence.trained)
            np.testing.assert_allclose(batch.weights[row, place], sequence.weights, rtol=1e-6)
            np.testing.assert_array_equal(batch.logprobs[row, place], sequence.logprobs)
    assert int(batch.trained.sum()) == sum(int(sequence.trained.sum()) for sequence in sequences)


@pytest.mark.parametrize("max_tokens", [1, 40, 1000])
def test_an_update_is_the_same_with_and_without_sharing(letters_policy, copy_policy, sequences, max_tokens):
    how = {"learning_rate": 1e-2, "weight_decay": 0.0, "micro_batch_tokens": max_tokens}
    found = []
    for share in (False, True):
        policy = copy_policy(letters_policy)
        learner = Learner(policy.model, LearnerParams(**how, share_prompts=share))
        metrics = learner.update(sequences, 0.0, seed=0)
        found.append((metrics, torch.cat([p.detach().flatten() for p in policy.model.parameters()])))
    before = torch.cat([p.detach().flatten() for p in letters_policy.model.parameters()])
    assert found[0][0] == pytest.approx(found[1][0], rel=1e-4, abs=1e-5)
    moved, difference = (found[0][1] - before).abs().mean(), (found[0][1] - found[1][1]).abs().mean()
    assert difference < 1e-3 * moved


def test_the_mismatch_is_measured_on_the_same_tokens(letters_policy, copy_policy, sequences):
    learners = [
        Learner(copy_policy(letters_policy).model, LearnerParams(learning_rate=1e-2, share_prompts=share))
        for share in (False, True)
    ]
    found = [learner.correct_mismatch(sequences, 2.0) for learner in learners]
    assert found[0][1] == pytest.approx(found[1][1], rel=1e-4)
    for plain, shared in zip(found[0][0], found[1][0], strict=True):
        np.testing.assert_allclose(plain.logprobs, shared.logprobs, atol=1e-4)
        np.testing.assert_allclose(plain.weights, shared.weights, rtol=1e-3)


@pytest.mark.parametrize("max_tokens", [1, 40, 1000])
def test_batches_hold_every_sequence_once_and_keep_prompts_together(sequences, max_tokens):
    groups = micro_batches(sequences, max_tokens, share_prompts=True)
    assert sorted(id(s) for group in groups for s in group) == sorted(map(id, sequences))
    for group in groups:
        batch = collate(group, share_prompts=True)
        assert batch.inputs["input_ids"].numel() <= max_tokens or len(batch.inputs["input_ids"]) == 1
    prompts = [{s.token_ids[: s.prompt_length].tobytes() for s in group} for group in groups]
    assert sum(map(len, prompts)) == len(LENGTHS)
