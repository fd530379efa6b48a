"""Checkpoints of a training run: weights and optimiser in safetensors, the rest in JSON; written atomically.

Every random choice of a step is derived from the seed and the step's number, so no generator state is kept.
"""

import json
import shutil
from pathlib import Path

from safetensors.torch import load_file, save_file

from mrt_pipeline.trainer.learner import Learner

CHECKPOINTS = Path("data/06_models/checkpoints")
_STATE, _OPTIMIZER, _MODEL = "state.json", "optimizer.safetensors", "model.safetensors"


def save_checkpoint(folder: Path, learner: Learner, state: dict) -> None:
    """Write weights, optimiser state and `state` (JSON values: step, token counts, history) in place of the last one.

    The folder always holds one complete checkpoint: the new one is written beside it and then renamed.
    """
    fresh = folder.with_name(folder.name + ".new")
    shutil.rmtree(fresh, ignore_errors=True)
    fresh.mkdir(parents=True)
    save_file({name: p.detach().contiguous() for name, p in learner.trainable().items()}, fresh / _MODEL)
    tensors = {
        f"{i}/{index}/{key}": value.contiguous()  # all that AdamW and Muon keep are tensors
        for i, optimizer in enumerate(learner.optimizers)
        for index, entries in optimizer.state_dict()["state"].items()
        for key, value in entries.items()
    }
    save_file(tensors, fresh / _OPTIMIZER)
    (fresh / _STATE).write_text(json.dumps({**state, "n_updates": learner.n_updates}))
    old = folder.with_name(folder.name + ".old")
    if folder.exists():
        shutil.rmtree(old, ignore_errors=True)  # left over if a save was killed at its very end
        folder.rename(old)
    fresh.rename(folder)
    shutil.rmtree(old, ignore_errors=True)


def load_checkpoint(folder: Path, learner: Learner) -> dict | None:
    """Put the checkpoint back into `learner` and return its state; None if there is none."""
    old = folder.with_name(folder.name + ".old")
    if not folder.exists() and old.exists():  # killed between the two renames
        old.rename(folder)
    if not (folder / _STATE).exists():
        return None
    state = json.loads((folder / _STATE).read_text())
    learner.put_back(load_file(folder / _MODEL))
    kept: list[dict[int, dict]] = [{} for _ in learner.optimizers]
    for name, value in load_file(folder / _OPTIMIZER).items():
        i, index, key = name.split("/")
        kept[int(i)].setdefault(int(index), {})[key] = value
    for optimizer, entries in zip(learner.optimizers, kept, strict=True):
        optimizer.load_state_dict({**optimizer.state_dict(), "state": entries})
    learner.n_updates = state.pop("n_updates")
    return state


def remove_checkpoint(key: str) -> None:
    """Remove the checkpoint of a finished training, and what an interrupted save may have left beside it."""
    for suffix in ("", ".old", ".new"):
        shutil.rmtree(CHECKPOINTS / f"{key}{suffix}", ignore_errors=True)
