"""Where the engine computes other probabilities than the trainer: measuring it, and correcting for it.

An engine with its own copy of the weights has its own kernels and precision, so its log-probability of a token differs
a little from the trainer's for the same weights. The policy that sampled is then not the one that is trained. As
truncated importance sampling does it (Yao et al. 2025, "Your efficient RL framework secretly brings you off-policy RL
training"; TRL's `vllm_importance_sampling_cap`), each token's weight is multiplied by min(pi_trainer / pi_engine, cap),
and the clipped ratio of the loss starts from the trainer's own probabilities.
"""

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import torch

from mrt_pipeline.trainer.batch import TrainingSequence
from mrt_pipeline.trainer.learner import Learner
from mrt_pipeline.trainer.logprobs import token_logprobs


def correct_mismatch(
    learner: Learner, sequences: Sequence[TrainingSequence], cap: float
) -> tuple[list[TrainingSequence], dict[str, float]]:
    """Sequences with the trainer's log-probabilities and corrected weights, and how large the mismatch was.

    cap: most that a token's weight is multiplied by. Sequences without log-probabilities (likelihood) stay as they are.
    Metrics, over the trained tokens: mean and largest absolute difference of log-probabilities, and the share of tokens
    at the cap.
    """
    if not any(sequence.logprobs is not None for sequence in sequences):
        return list(sequences), {}
    scored = _score(learner, sequences)
    corrected, differences = [], []
    for sequence, logprobs in zip(sequences, scored, strict=True):
        difference = np.where(sequence.trained, logprobs - sequence.logprobs, 0.0)
        ratio = np.minimum(np.exp(difference), cap)
        corrected.append(replace(sequence, weights=sequence.weights * ratio, logprobs=logprobs.astype(np.float32)))
        differences.append(difference[sequence.trained])
    flat = np.concatenate(differences)
    if not len(flat):
        return corrected, {}
    return corrected, {
        "mismatch_mean": float(np.abs(flat).mean()),
        "mismatch_max": float(np.abs(flat).max()),
        "mismatch_capped": float((flat > np.log(cap)).mean()),
    }


@torch.no_grad()
def _score(learner: Learner, sequences: Sequence[TrainingSequence]) -> list[np.ndarray]:
    """The trainer's log-probabilities of the tokens after each prompt, 0 where a token is not trained."""
    learner.model.eval()
    position = {id(sequence): i for i, sequence in enumerate(sequences)}
    scored: list[np.ndarray] = [np.empty(0)] * len(sequences)
    for batch, group in learner.batches(sequences):
        logprobs, _ = token_logprobs(learner.model, batch, learner.temperature)
        table = logprobs.cpu().numpy()
        for (row, start), sequence in zip(batch.places, group, strict=True):
            found = table[row, start : start + len(sequence.trained)]
            scored[position[id(sequence)]] = np.where(sequence.trained, found, 0.0)
    return scored
