"""One update for every algorithm: sequences with token weights in, better policy out."""

import math
from collections.abc import Iterator, Mapping, Sequence
from contextlib import nullcontext
from dataclasses import replace

import numpy as np
import torch
from accelerate import Accelerator

from mrt_pipeline.policy.policy import has_adapters
from mrt_pipeline.trainer.batch import MicroBatch, TrainingSequence, collate, micro_batches
from mrt_pipeline.trainer.logprobs import token_logprobs
from mrt_pipeline.trainer.loss import policy_loss
from mrt_pipeline.trainer.muon import Muon
from mrt_pipeline.trainer.params import LearnerParams

_TOTALS = ("loss", "kl", "clip_fraction", "ratio_kl", "entropy")  # what is added up over the trained tokens


class Learner:
    """Trains `model` in place.

    reference: a frozen policy for the KL term, needed only if settings.kl_beta > 0; not for a model with adapters,
        which is its own reference with the adapters switched off.
    temperature: at which the sequences were sampled.
    """

    def __init__(self, model, settings: LearnerParams, reference=None, temperature: float = 1.0):
        if settings.kl_beta > 0 and reference is None and not has_adapters(model):
            raise ValueError("kl_beta > 0 needs a reference policy")
        self.settings, self.temperature = settings, temperature
        self.accelerator = Accelerator(mixed_precision=settings.mixed_precision)
        optimizers = _build_optimizers(model, settings)
        self.model, *self.optimizers = self.accelerator.prepare(model, *optimizers)
        self.reference = None if reference is None else reference.to(self.accelerator.device)
        self.n_updates = 0
        self._start: dict[str, torch.Tensor] = {}

    def rate(self, fraction_done: float) -> float:
        """Multiplier of the peak learning rate when `fraction_done` (0..1) of training is over."""
        warmup = self.settings.warmup
        if fraction_done < warmup:
            return max(fraction_done, 1e-3 * warmup) / warmup
        if self.settings.schedule == "cosine":
            rest = (fraction_done - warmup) / max(1e-9, 1 - warmup)
            return 0.5 * (1 + math.cos(math.pi * min(1.0, rest)))
        return 1.0

    def trainable(self) -> dict[str, torch.nn.Parameter]:
        """The parameters that are trained, by name."""
        model = self.accelerator.unwrap_model(self.model)
        return {name: parameter for name, parameter in model.named_parameters() if parameter.requires_grad}

    @torch.no_grad()
    def put_back(self, weights: Mapping[str, torch.Tensor]) -> None:
        """Give the trainable parameters the values that they had."""
        for name, parameter in self.trainable().items():
            parameter.copy_(weights[name])

    def remember_start(self) -> None:
        """Keep a copy of the weights as they are now, in the host's memory, for `restart`."""
        self._start = {name: p.detach().to("cpu", copy=True) for name, p in self.trainable().items()}

    def restart(self) -> None:
        """Back to the weights that were remembered, with an optimiser that knows nothing."""
        self.put_back(self._start)
        for optimizer in self.optimizers:
            optimizer.state.clear()

    def update(
        self, sequences: Sequence[TrainingSequence], fraction_done: float, seed: int, span: float = 0.0
    ) -> dict[str, float]:
        """One pass over the batch in `minibatches` optimiser steps. Returns means over the trained tokens.

        fraction_done: of training, at its start. span: how much of training it is; the learning rate follows that, each
            minibatch having that of its middle.
        seed: of the order in which sequences are dealt to minibatches.
        """
        self.model.train()
        order = np.random.default_rng(seed).permutation(len(sequences))
        totals = dict.fromkeys(_TOTALS, 0.0)
        grad_norms: list[float] = []
        n_trained = 0
        parts = np.array_split(order, max(1, min(self.settings.minibatches, len(sequences))))
        for part, indices in enumerate(parts):
            rate = self.rate(fraction_done + span * (part + 0.5) / len(parts))
            peaks = (self.settings.learning_rate, self.settings.muon_learning_rate)
            for optimizer, peak in zip(self.optimizers, peaks):
                optimizer.param_groups[0]["lr"] = peak * rate
            minibatch = [sequences[i] for i in indices]
            n_tokens = sum(int(sequence.trained.sum()) for sequence in minibatch)
            if n_tokens == 0:
                continue
            for batch in self.batches(minibatch):
                self._accumulate(batch, n_tokens, totals)
            norm = self.accelerator.clip_grad_norm_(self.model.parameters(), self.settings.max_grad_norm)
            if not torch.isfinite(norm):
                for optimizer in self.optimizers:
                    optimizer.zero_grad()
                raise FloatingPointError(
                    f"the gradient became {float(norm)} in update {self.n_updates}: lower the learning_rate, "
                    "and look at the last sample traces"
                )
            for optimizer in self.optimizers:
                optimizer.step()
                optimizer.zero_grad()
            grad_norms.append(float(norm))
            n_trained += n_tokens
        self.n_updates += len(grad_norms)
        metrics = {name: total / max(1, n_trained) for name, total in totals.items()}
        metrics["loss"] = totals["loss"] / max(1, len(grad_norms))
        metrics["grad_norm"] = float(np.mean(grad_norms)) if grad_norms else 0.0
        metrics["learning_rate"] = self.settings.learning_rate * rate
        return metrics

    def gradient(self, sequences: Sequence[TrainingSequence]) -> dict[str, torch.Tensor]:
        """The gradient of the loss for the policy as it is, by the names of `trainable`; nothing is updated.

        It is that of the first step on a batch which this very policy sampled: every importance ratio is 1 and nothing
        is clipped, whatever log-probabilities the sequences carry. 0 everywhere if no token is trained.
        """
        self.model.train()
        for optimizer in self.optimizers:
            optimizer.zero_grad()
        n_tokens = max(1, sum(int(sequence.trained.sum()) for sequence in sequences))
        totals = dict.fromkeys(_TOTALS, 0.0)
        for batch in self.batches([replace(sequence, logprobs=None) for sequence in sequences]):
            self._accumulate(batch, n_tokens, totals)
        found = {name: torch.zeros_like(p) if p.grad is None else p.grad for name, p in self.trainable().items()}
        for optimizer in self.optimizers:
            optimizer.zero_grad()  # lets go of the gradients, and leaves them as they are
        return found

    @torch.no_grad()
    def correct_mismatch(
        self, sequences: Sequence[TrainingSequence], cap: float
    ) -> tuple[list[TrainingSequence], dict[str, float]]:
        """Sequences with the learner's own log-probabilities and corrected weights, and how large the mismatch was.

        An engine with its own copy of the weights has its own kernels and precision, so the policy that sampled is not
        quite the one that is trained. As in truncated importance sampling (Yao et al. 2025, "Your efficient RL
        framework secretly brings you off-policy RL training"; TRL's `vllm_importance_sampling_cap`), each token's
        weight is multiplied by min(pi_learner / pi_engine, cap), and the clipped ratio of the loss starts from the
        learner's probabilities. Likelihood training has no ratio: its sequences stay as they are.
        Metrics, over the trained tokens: mean and largest absolute difference of log-probabilities, and the share of
        tokens at the cap.
        """
        if not sequences or sequences[0].logprobs is None:
            return list(sequences), {}
        self.model.eval()
        corrected: dict[int, tuple[TrainingSequence, np.ndarray]] = {}
        for batch in self.batches(sequences):
            for sequence, own in batch.parts(token_logprobs(self.model, batch, self.temperature)[0]):
                logprobs = np.where(sequence.trained, own, 0.0).astype(np.float32)
                difference = np.where(sequence.trained, logprobs - np.asarray(sequence.logprobs), 0.0)
                weights = sequence.weights * np.minimum(np.exp(difference), cap)
                new = replace(sequence, weights=weights, logprobs=logprobs)
                corrected[id(sequence)] = new, difference[sequence.trained]
        found = [corrected[id(sequence)][0] for sequence in sequences]
        differences = np.concatenate([corrected[id(sequence)][1] for sequence in sequences])
        if not len(differences):
            return found, {}
        return found, {
            "mismatch_mean": float(np.abs(differences).mean()),
            "mismatch_max": float(np.abs(differences).max()),
            "mismatch_capped": float((differences > np.log(cap)).mean()),
        }

    def batches(self, sequences: Sequence[TrainingSequence]) -> Iterator[MicroBatch]:
        """Micro-batches on the learner's device."""
        share_prompts = self.settings.share_prompts
        for group in micro_batches(sequences, self.settings.micro_batch_tokens, share_prompts):
            yield collate(group, self.accelerator.device, share_prompts)

    def _accumulate(self, batch: MicroBatch, n_tokens: int, totals: dict[str, float]) -> None:
        logprobs, entropy = token_logprobs(self.model, batch, self.temperature)
        reference = None
        if self.settings.kl_beta > 0:
            model = self.reference if self.reference is not None else self.model
            apart = nullcontext() if model is self.reference else self.accelerator.unwrap_model(model).disable_adapter()
            with torch.no_grad(), apart:
                reference, _ = token_logprobs(model, batch, self.temperature)
        how = self.settings.clip_low, self.settings.clip_high, self.settings.kl_beta
        loss, sums = policy_loss(logprobs, batch.weights, batch.trained, n_tokens, batch.logprobs, reference, *how)
        self.accelerator.backward(loss)
        for name, value in {**sums, "entropy": float(entropy[batch.trained].sum())}.items():
            totals[name] += value


def _build_optimizers(model, settings: LearnerParams) -> list[torch.optim.Optimizer]:
    """AdamW, and Muon for the hidden matrices if that is chosen."""
    trainable = [p for p in model.parameters() if p.requires_grad]
    layers = (model.get_input_embeddings(), model.get_output_embeddings())
    embeddings = {id(p) for layer in layers if layer is not None for p in layer.parameters()}
    hidden = {id(p) for p in trainable if settings.optimizer == "muon" and p.ndim == 2} - embeddings
    rest, decay = [p for p in trainable if id(p) not in hidden], settings.weight_decay
    betas = (settings.beta1, settings.beta2)
    adamw = torch.optim.AdamW(rest, lr=settings.learning_rate, betas=betas, weight_decay=decay)
    if not hidden:
        return [adamw]
    return [adamw, Muon([p for p in trainable if id(p) in hidden], lr=settings.muon_learning_rate, weight_decay=decay)]
