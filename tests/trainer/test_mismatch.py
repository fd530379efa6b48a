import numpy as np
import pytest

from mrt_pipeline.trainer.batch import TrainingSequence
from mrt_pipeline.trainer.learner import Learner, LearnerParams


@pytest.fixture
def learner(letters_policy, copy_policy):
    return Learner(copy_policy(letters_policy).model, LearnerParams(learning_rate=1e-3, micro_batch_tokens=16))


@pytest.fixture
def sequences(learner, all_logprobs):
    """Sequences of different lengths with the trainer's own log-probabilities, a token of each not trained."""
    rng = np.random.default_rng(0)
    found = []
    for prompt, n in ((2, 5), (4, 3), (1, 9)):
        ids = rng.integers(0, 16, size=prompt + n)
        own = np.take_along_axis(all_logprobs(learner.model, ids)[prompt - 1 : -1], ids[prompt:, None], 1)[:, 0]
        trained = np.arange(n) != 1
        found.append(TrainingSequence(ids, prompt, rng.normal(size=n), trained, np.where(trained, own, 0.0)))
    return found


def shifted(sequences, by):
    """As if the engine's log-probabilities were lower by `by`."""
    return [
        TrainingSequence(s.token_ids, s.prompt_length, s.weights, s.trained, np.where(s.trained, s.logprobs - by, 0.0))
        for s in sequences
    ]


def test_equal_probabilities_change_nothing(learner, sequences):
    corrected, metrics = learner.correct_mismatch(sequences, cap=2.0)
    for before, after in zip(sequences, corrected, strict=True):
        assert np.allclose(after.weights, before.weights, atol=1e-5)
        assert np.allclose(after.logprobs, before.logprobs, atol=1e-5)
    assert metrics["mismatch_max"] < 1e-5 and metrics["mismatch_capped"] == 0


@pytest.mark.parametrize(
    ("by", "ratio", "capped"), [(np.log(1.5), 1.5, 0.0), (-1.0, np.exp(-1.0), 0.0), (3.0, 2.0, 1.0)]
)
def test_weights_are_multiplied_by_the_ratio_up_to_the_cap(learner, sequences, by, ratio, capped):
    corrected, metrics = learner.correct_mismatch(shifted(sequences, by), cap=2.0)
    for before, after in zip(sequences, corrected, strict=True):
        assert np.allclose(after.weights[after.trained], before.weights[after.trained] * ratio, atol=1e-4)
        assert np.array_equal(after.weights[~after.trained], before.weights[~after.trained])
        assert np.allclose(after.logprobs, before.logprobs, atol=1e-5)  # the trainer's, not the engine's
    assert metrics["mismatch_mean"] == pytest.approx(abs(by), abs=1e-4)
    assert metrics["mismatch_capped"] == capped


def test_likelihood_training_has_no_ratio(learner, sequences):
    plain = [TrainingSequence(s.token_ids, s.prompt_length, s.weights, s.trained) for s in sequences]
    corrected, metrics = learner.correct_mismatch(plain, cap=2.0)
    assert corrected == plain and metrics == {}
