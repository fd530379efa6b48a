"""Time of an optimiser step of Muon in the parameters' precision against torch's, which rounds to bfloat16, in one run.

    python benchmarks/muon.py

On the hidden matrices of the embedded default's model. Quote the ratio; it depends on whether the processor has
bfloat16 units.
"""

import statistics
import time

import torch

from mrt_pipeline.policy.policy import build_policy
from mrt_pipeline.tasks.countdown import Countdown
from mrt_pipeline.trainer.muon import Muon

REPEATS = 20


def main():
    task = Countdown()
    model = build_policy(task.symbols(), task.markers, task.template, 96, 3, 3, 256, 512, seed=0).model
    matrices = [parameter for parameter in model.model.layers.parameters() if parameter.ndim == 2]
    for parameter in matrices:
        parameter.grad = torch.randn_like(parameter)
    optimizers = {"ours": Muon(matrices, lr=1e-4), "torch": torch.optim.Muon(matrices, lr=1e-4)}
    seconds = {name: [] for name in optimizers}
    for _ in range(REPEATS):
        for name, optimizer in optimizers.items():
            start = time.perf_counter()
            optimizer.step()
            seconds[name].append(time.perf_counter() - start)
    ours, theirs = (statistics.median(seconds[name]) for name in ("ours", "torch"))
    print(f"{torch.get_num_threads()} threads, {len(matrices)} matrices: torch's step takes {theirs / ours:.1f} x ours")


if __name__ == "__main__":
    main()
