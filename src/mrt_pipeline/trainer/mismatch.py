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


@torch.no_grad()
def correct_mismatch(
    learner: Learner, sequences: Sequence[TrainingSequence], cap: float
) -> tuple[list[TrainingSequence], dict[str, float]]:
    """Sequences with the trainer's log-probabilities and corrected weights, and how large the mismatch was.

    cap: most that a token's weight is multiplied by. Sequences without log-probabilities (likelihood) stay as they are.
    Metrics, over the trained tokens: mean and largest absolute difference of log-probabilities, and the share of tokens
    at the cap.
    """
    if not sequences or sequences[0].logprobs is None:
        return list(sequences), {}
    learner.model.eval()
    scored: dict[int, np.ndarray] = {}
    for batch in learner.batches(sequences):
        for sequence, found in batch.parts(token_logprobs(learner.model, batch, learner.temperature)[0]):
            scored[id(sequence)] = np.where(sequence.trained, found, 0.0).astype(np.float32)
    corrected, differences = [], []
    for sequence in sequences:
        logprobs = scored[id(sequence)]
        difference = np.where(sequence.trained, logprobs - sequence.logprobs, 0.0)
        ratio = np.minimum(np.exp(difference), cap)
        corrected.append(replace(sequence, weights=sequence.weights * ratio, logprobs=logprobs))
        differences.append(difference[sequence.trained])
    flat = np.concatenate(differences)
    if not len(flat):
        return corrected, {}
    return corrected, {
        "mismatch_mean": float(np.abs(flat).mean()),
        "mismatch_max": float(np.abs(flat).max()),
        "mismatch_capped": float((flat > np.log(cap)).mean()),
    }
