"""Muon in the parameters' own precision (Jordan et al. 2024, https://kellerjordan.github.io/posts/muon/).

    m <- momentum m + (1 - momentum) g,   u = (1 - momentum) g + momentum m        (Nesterov)
    W <- (1 - rate decay) W - rate sqrt(max(1, rows / columns)) orthogonal(u)

The same update as `torch.optim.Muon`, but that one orthogonalises in bfloat16 whatever the parameters are, and on a
processor without bfloat16 units the step then takes longer than the forward and backward pass together.
"""

import math

import torch


class Muon(torch.optim.Muon):
    """Momentum, orthogonalised. Takes matrices only; embeddings and vectors belong to another optimiser."""

    @torch.no_grad()
    def step(self, closure=None):
        """One update of every parameter that has a gradient. closure: not supported."""
        if closure is not None:
            raise ValueError("Muon does not support closures")
        for group in self.param_groups:
            for parameter in group["params"]:
                if parameter.grad is None:
                    continue
                state = self.state[parameter]
                if not state:
                    state["momentum"] = torch.zeros_like(parameter)
                averaged = state["momentum"].lerp_(parameter.grad, 1 - group["momentum"])
                update = orthogonalize(parameter.grad.lerp(averaged, group["momentum"]))
                rows, columns = parameter.shape
                parameter.mul_(1 - group["lr"] * group["weight_decay"])
                parameter.add_(update, alpha=-group["lr"] * math.sqrt(max(1.0, rows / columns)))


def orthogonalize(matrix: torch.Tensor) -> torch.Tensor:
    """`matrix` with its singular values moved near 1, by Newton-Schulz iterations of a quintic polynomial."""
    linear, cubic, quintic = 3.4445, -4.7750, 2.0315  # Jordan et al.: roughly between 0.7 and 1.2 at the end
    tall = matrix.shape[0] > matrix.shape[1]
    x = matrix.T if tall else matrix
    x = x / x.norm().clamp(min=1e-7)
    for _ in range(5):
        gram = x @ x.T
        x = linear * x + (cubic * gram + quintic * gram @ gram) @ x
    return x.T if tall else x
