"""Handing the trainer's weights over to vLLM: merging adapters, and what runs in vLLM's workers."""

from collections.abc import Iterator
from pathlib import Path

import torch
from safetensors.torch import load_file, save_file

_FILE = "weights.safetensors"


def merged_weights(model: torch.nn.Module) -> Iterator[tuple[str, torch.Tensor]]:
    """Name and value of every weight as a plain model has it, LoRA adapters added in; the model is left as it is."""
    layers = {name: module for name, module in model.named_modules() if hasattr(module, "get_delta_weight")}
    for name, parameter in model.named_parameters():
        if "lora_" in name:
            continue
        value = parameter.detach()
        layer = layers.get(name.removesuffix(".base_layer.weight"))
        if layer is not None and name.endswith(".base_layer.weight"):
            for adapter in layer.active_adapters:
                value = value + layer.get_delta_weight(adapter).detach().to(value.dtype)
        yield name.removeprefix("base_model.model.").replace(".base_layer", ""), value


def save_weights(model: torch.nn.Module, folder: Path, dtype: torch.dtype) -> None:
    """Write the merged weights to a file in `folder`, for `WeightReader`."""
    named = {name: value.to("cpu", dtype).contiguous() for name, value in merged_weights(model)}
    save_file(named, folder / _FILE)


def take_weights(worker, named: list[tuple[str, torch.Tensor]]) -> None:
    """Runs in a vLLM worker: load these weights in place of its own."""
    worker.reload_weights(weights_iterator=iter(named))
    model = worker.model_runner.get_model()
    head = getattr(model, "lm_head", None)
    method = getattr(head, "quant_method", None)
    if method is not None and not torch.cuda.is_available():  # on CPUs a tied head keeps its old, re-packed copy
        method.process_weights_after_loading(head)


class WeightReader:
    """Mixed into the workers of a vLLM server (`--worker-extension-cls`), which are told to read by /collective_rpc."""

    def read_weights(self, folder: str) -> None:
        """Take over the weights that `save_weights` has put into `folder`."""
        take_weights(self, list(load_file(Path(folder) / _FILE).items()))
