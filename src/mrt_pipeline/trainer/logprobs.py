"""Log-probabilities of the tokens of a micro-batch, without ever holding the logits of a long trace.

The logits of 36,864 tokens over 151,936 symbols are 21 GiB in float32, and a loss needs several times that. Only one
number a token is wanted, so the head is applied to a piece of the trace at a time and applied again in the backward
pass (activation checkpointing of the head alone).
"""

import torch
from torch.utils.checkpoint import checkpoint

from mrt_pipeline.policy.fused import FusedModel, in_rows
from mrt_pipeline.policy.policy import has_adapters
from mrt_pipeline.trainer.batch import MicroBatch

MOST_LOGITS = 2**27
"""Logits held at once: 512 MiB in float32, and their normalisation and gradient the same again."""


def token_logprobs(
    model, batch: MicroBatch, temperature: float = 1.0, most_logits: int = MOST_LOGITS
) -> tuple[torch.Tensor, torch.Tensor]:
    """Log-probability of every target token, and the entropy it was drawn with (nats, no gradient): (rows, kept).

    model: a transformers causal language model, with or without peft's adapters and accelerate's mixed precision.
        Inside another wrapper, as for several devices, all logits are computed at once.
    most_logits: when the micro-batch has more logits than this, they are computed in pieces of that size.
    """
    # A wrapper, as for several devices, has no decoder: only its own forward may be called.
    head = model.get_output_embeddings() if hasattr(model, "get_decoder") else None
    if head is not None and batch.targets.numel() * len(head.weight) > most_logits:
        found = _in_pieces(model, head, batch, temperature, most_logits)
        if found is not None:
            return found
    return _of_logits(_logits(model, batch), batch.targets, temperature)


def _logits(model, batch: MicroBatch) -> torch.Tensor:
    """What predicts the targets: (rows, kept, n_symbols)."""
    ids, n_kept = batch.inputs["input_ids"], batch.targets.shape[1]
    if has_adapters(model) or not FusedModel.fits(model):  # for training, adapters stay apart in either mode
        return model(**batch.inputs, use_cache=False, logits_to_keep=n_kept + 1).logits[:, :-1]
    fused, positions = FusedModel(model), torch.arange(ids.shape[1], device=ids.device).expand_as(ids)
    positions = batch.inputs.get("position_ids", positions)
    attend = in_rows((ids.shape[0], ids.shape[1]), batch.inputs.get("attention_mask"))
    hidden = fused.hidden(ids.flatten(), positions.flatten(), attend).unflatten(0, ids.shape)
    return fused.logits(hidden[:, -n_kept - 1 : -1])


def _in_pieces(
    model, head, batch: MicroBatch, temperature: float, most_logits: int
) -> tuple[torch.Tensor, torch.Tensor] | None:
    """The same, by the head alone. None for a model that scales or caps what its head gives.

    What the head gets, and in which precision, is caught on the way through the model's own forward, so that whatever
    wraps that still happens.
    """
    caught = []

    def catch(_module, _args, output):
        device = batch.targets.device.type
        kind, enabled = torch.get_autocast_dtype(device), torch.is_autocast_enabled(device)
        caught.append((output.last_hidden_state, torch.autocast(device, dtype=kind, enabled=enabled)))

    hook = model.get_decoder().register_forward_hook(catch)
    try:
        last_logits = model(**batch.inputs, use_cache=False, logits_to_keep=1).logits
    finally:
        hook.remove()
    ((hidden, precision),) = caught

    def of_hidden(piece: torch.Tensor, targets: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        return _of_logits(head(piece), targets, temperature)

    with precision:
        if not torch.allclose(head(hidden[:, -1:]).float(), last_logits.float(), rtol=1e-2, atol=1e-3):
            return None
        rows, kept = batch.targets.shape
        step = max(1, most_logits // (rows * len(head.weight)))
        pieces = zip(hidden[:, -kept - 1 : -1].split(step, dim=1), batch.targets.split(step, dim=1), strict=True)
        found = [checkpoint(of_hidden, *piece, use_reentrant=False) for piece in pieces]
    logprobs, entropy = zip(*found, strict=True)
    return torch.cat(logprobs, dim=1), torch.cat(entropy, dim=1)


def _of_logits(logits: torch.Tensor, targets: torch.Tensor, temperature: float) -> tuple[torch.Tensor, torch.Tensor]:
    normalized = torch.log_softmax(logits.float() / temperature, dim=-1)
    with torch.no_grad():
        entropy = -(normalized.exp() * normalized).sum(-1)
    return normalized.gather(2, targets[:, :, None])[:, :, 0], entropy
