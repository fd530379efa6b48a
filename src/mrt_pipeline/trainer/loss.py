"""The one loss of every algorithm here: token-weighted, clipped policy gradient.

    L = -sum_t min(rho_t w_t, clip(rho_t, 1 - low, 1 + high) w_t) / N  +  beta * sum_t KL_t / N
    rho_t = pi(a_t) / pi_old(a_t)                            N = number of trained tokens in the optimiser step

A weight w_t is whatever an algorithm's credit assignment says; with w = group-centred reward this is GRPO (arXiv
2402.03300) with the token-level mean and the asymmetric clipping of DAPO (arXiv 2503.14476). Without old
log-probabilities rho is replaced by log pi, which has the same gradient at pi = pi_old: w = 1 is then maximum
likelihood (STaR, warm start).
KL is the non-negative estimator exp(d) - d - 1 with d = log pi_ref - log pi.
"""

import torch


def policy_loss(
    logprobs: torch.Tensor,
    weights: torch.Tensor,
    trained: torch.Tensor,
    normalizer: float,
    old_logprobs: torch.Tensor | None = None,
    reference_logprobs: torch.Tensor | None = None,
    clip_low: float = 0.2,
    clip_high: float = 0.28,
    kl_beta: float = 0.0,
) -> tuple[torch.Tensor, dict[str, float]]:
    """Loss of a micro-batch, and sums over its trained tokens.

    logprobs, weights, old_logprobs, reference_logprobs: float (rows, tokens). trained: bool (rows, tokens); tokens
    where it is False contribute nothing, whatever the other arguments hold there.
    normalizer: N above, counted over all micro-batches of the optimiser step.
    Sums: `loss` again; `kl` to the reference policy; `clip_fraction`, the tokens where the clip took the gradient;
    `ratio_kl`, the estimate of the KL to the old policy.
    """
    weights = weights.masked_fill(~trained, 0.0)
    if old_logprobs is None:
        log_ratio, clipped = torch.zeros_like(logprobs), torch.zeros_like(trained)
        surrogate = logprobs.masked_fill(~trained, 0.0) * weights
    else:
        log_ratio = (logprobs - old_logprobs).masked_fill(~trained, 0.0)
        ratio = log_ratio.exp()
        bounded = ratio.clamp(1 - clip_low, 1 + clip_high) * weights
        surrogate = torch.minimum(ratio * weights, bounded)
        clipped = trained & (bounded < ratio * weights)
    loss = -surrogate.sum()
    kl = torch.zeros(())
    if reference_logprobs is not None and kl_beta:
        distance = (reference_logprobs - logprobs).masked_fill(~trained, 0.0)
        kl = (distance.exp() - distance - 1).sum()
        loss = loss + kl_beta * kl
    with torch.no_grad():
        ratio_kl = (log_ratio.exp() - 1 - log_ratio).sum()
    loss = loss / normalizer
    sums = {"loss": loss, "kl": kl, "clip_fraction": clipped.sum(), "ratio_kl": ratio_kl}
    return loss, {name: float(value.detach()) for name, value in sums.items()}
