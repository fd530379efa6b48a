"""Policies as they are configured: where they come from and how they are trained."""

import json
from importlib.util import find_spec
from pathlib import Path
from typing import Annotated, ClassVar, Literal, Self

from pydantic import Field, model_validator

from mrt_pipeline.errors import InputError
from mrt_pipeline.policy.policy import ADAPTERS, CARD, LoRAParams, Policy, PolicyCard, SavedPolicy
from mrt_pipeline.policy.template import TemplateParams
from mrt_pipeline.policy.text_template import ChatParams, TextBacktrackTemplateParams, TextTemplateParams
from mrt_pipeline.registry import Params, PositiveFloat, PositiveInt, Registered, content_of

_PATH = "run id, models:/name/version, models:/name@alias, folder of weights or of LoRA adapters"
_PACKAGE = "package:"


class PolicyParams(Registered):
    """Family of the policies; a member says where its weights come from, and how they are trained."""

    kind: ClassVar[str] = "policy"
    builtin: ClassVar[dict[str, str]] = {
        "tiny": "mrt_pipeline.trainer.params",
        "language_model": "mrt_pipeline.policy.configured",
    }
    path: str | None = Field(default=None, description=f"{_PATH}; null: made from scratch by the warm start")
    max_length: PositiveInt = Field(description="most tokens of a trace, prompt and answer included")

    @property
    def given_template(self) -> TemplateParams | None:
        """How it thinks and answers; None if that comes from the task."""
        return None

    def saved(self, path: str) -> SavedPolicy:
        """The policy in a folder, with the card that it was saved with. Raises InputError if there is none."""
        found = SavedPolicy.read(path)
        in_words = isinstance(found.card.template, ChatParams)
        if in_words != (self.given_template is not None):
            what = "a language model: give policy=language_model" if in_words else "made of symbols: give policy=tiny"
            raise InputError(f"the policy in {path} is {what}")
        return found.called(name="base", max_length=self.max_length)

    def deciding(self) -> dict:
        """See `Params.deciding`; of a folder, also what is in it."""
        return {**super().deciding(), **({"content": folder_content(self.path)} if self.path else {})}


class TextWarmStartParams(Params):
    """Likelihood training of a language model on traces, before anything else; see trainer/warm_start.py.

    It teaches a model the format in which it is to think, as those of the paper's backtracking search were taught.
    """

    traces: str | None = Field(
        default=None,
        description="a .jsonl, .json, .parquet or .csv file with the columns question, thought and answer; null: the "
        "task's own search traces, if it writes any",
    )
    full: bool = Field(
        default=True, description="train all weights; false: the adapters of policy.lora, which training goes on with"
    )
    new_tokens: list[Annotated[str, Field(min_length=1)]] = Field(
        default=[], description="tokens to add to the vocabulary, as <think> and </think>; all weights are trained then"
    )
    steps: PositiveInt = Field(default=300, description="optimiser steps")
    batch_size: PositiveInt = Field(default=16, description="traces of a step")
    learning_rate: PositiveFloat = Field(default=1e-4, description="peak of AdamW's; it rises, then falls to 0")
    micro_batch_tokens: PositiveInt = Field(default=4096, description="padded tokens of one forward pass")
    seed: int = Field(default=0, description="of the traces and of fresh weights; runs with other seeds share the base")

    @model_validator(mode="after")
    def _new_tokens_are_trained(self) -> Self:
        if self.new_tokens and not self.full:
            raise ValueError("new_tokens have weights that no adapter trains: set full=true, or leave them out")
        return self


class LanguageModelPolicy(PolicyParams):
    """A causal language model; see policy/policy.py."""

    name: Literal["language_model"] = "language_model"
    path: str = Field(min_length=1, description=f"{_PATH}, hub id, or package:<name> for weights in a Python package")
    gguf_file: str | None = Field(default=None, description="of the folder, with the weights; they are unpacked once")
    revision: str | None = Field(default=None, description="of a model on the hub")
    dtype: Literal["float32", "bfloat16"] = Field(
        default="bfloat16", description="of the weights; float32 if all are trained: bfloat16 rounds small steps away"
    )
    lora: LoRAParams | None = Field(
        default=LoRAParams(rank=16, alpha=32, dropout=0.0), description="null: all weights are trained"
    )
    gradient_checkpointing: bool = Field(default=True, description="recompute activations backwards to save memory")
    max_length: PositiveInt = Field(default=32768, description="most tokens of a trace, prompt and answer included")
    template: Annotated[TextTemplateParams | TextBacktrackTemplateParams, Field(discriminator="kind")] = (
        TextTemplateParams()
    )
    warm_start: TextWarmStartParams | None = Field(
        default=None, description="what teaches the model the format first, once for all runs that share it; null: none"
    )

    @property
    def given_template(self) -> TemplateParams:
        """See `PolicyParams`."""
        return self.template

    def saved(self, path: str) -> SavedPolicy:
        """The policy in a folder or on the hub; how it thinks and answers is its card's, if it was saved with one."""
        base = adapters_base(path)
        if self.lora is None and base:
            raise InputError(
                f"policy.lora=null trains all weights, but {path} holds LoRA adapters: leave policy.lora as it is, or "
                "merge them into their model and give that"
            )
        if (Path(path) / CARD).is_file():
            found = super().saved(path)
        else:
            start = locate(base) if base else path
            card = PolicyCard(base=start, revision=self.revision, max_length=self.max_length, template=self.template)
            found = SavedPolicy(card, Path(path) if base else None)
        return found.called(lora=self.lora, gradient_checkpointing=self.gradient_checkpointing, dtype=self.dtype)

    def check(self, tree) -> None:
        """All weights in bfloat16 would not learn; see `Registered.check`."""
        if self.lora is None and self.dtype == "bfloat16":
            raise ValueError(
                "policy.lora=null trains all weights, and in policy.dtype=bfloat16 small steps are rounded away: set "
                "policy.dtype=float32 and training.learner.mixed_precision=bf16"
            )
        if self.warm_start is None:
            return
        if self.warm_start.full and self.dtype == "bfloat16":
            raise ValueError(
                "policy.warm_start trains all weights, which needs policy.dtype=float32; or set full=false"
            )
        if not self.warm_start.full and self.lora is None:
            raise ValueError("policy.warm_start.full=false trains the adapters of policy.lora, but that is null")
        if self.warm_start.traces is None and not hasattr(tree.task, "search_trace"):
            raise ValueError(
                f"task={tree.task.name} writes no traces to warm-start on: give policy.warm_start.traces, or take "
                "task=countdown_words"
            )

    def deciding(self) -> dict:
        """See `Params.deciding`; of a file of traces, also its content."""
        traces = self.warm_start and self.warm_start.traces
        content = {"traces": content_of(Path(traces))} if traces else {}
        return {**super().deciding(), **content}


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


def is_saved(path: str) -> bool:
    """Whether a folder holds a policy, or adapters, rather than the weights of any model."""
    return (Path(path) / CARD).is_file() or adapters_base(path) is not None


def folder_content(path: str) -> list[list[object]]:
    """What tells one content of a policy's folder from another; empty for what is no folder.

    Names, sizes and times of its files and of those of the model that its adapters belong to; of a card, its values but
    for name and key, which every run gives anew.
    """
    folder = Path(path).expanduser()
    if not folder.is_dir():
        return []
    files = [file for file in sorted(folder.rglob("*")) if file.is_file() and file != folder / CARD]
    found: list[list[object]] = [[str(f.relative_to(folder)), f.stat().st_size, f.stat().st_mtime_ns] for f in files]
    base = adapters_base(folder)
    try:
        card = SavedPolicy.read(folder).card
        base = card.base or base
        found.append([CARD, card.model_dump_json(exclude={"name", "key"})])
    except InputError as error:  # it has none, or a damaged one, which is said again when the policy is opened
        found.append([CARD, str(error)])
    return [*found, *(folder_content(base) if base and Path(base).resolve() != folder.resolve() else [])]


def open_policy(path: str, **how) -> Policy:
    """The policy in a folder or on the hub, opened: model, tokenizer and template.

    path: a folder that this project saved; or any causal language model, by folder or hub id, or its LoRA adapters.
    how: parameters of `LanguageModelPolicy`, as template or dtype, for what was not saved by this project.
    Raises InputError in words.
    """
    place = locate(path)
    if (Path(place) / CARD).is_file() and not how:
        return SavedPolicy.read(place).open()
    return LanguageModelPolicy(path=path, **how).saved(place).open()


def longest_answer(template: TemplateParams | None, rollout) -> int:
    """Most tokens of any answer of a policy that answers like this. rollout: `RolloutParams`."""
    if isinstance(template, TextTemplateParams) and template.writes_freely:
        return max(rollout.answer_tokens, template.free_answer_tokens)
    return rollout.answer_tokens
