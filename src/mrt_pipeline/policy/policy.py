"""A policy: a causal language model with its tokenizer and template; building, saving, opening, training on.

A saved policy is a folder with weights or LoRA adapters (safetensors), the tokenizer, and a card, `policy_card.json`:
what the weights are of, and how the policy thinks and answers. So the folder alone says how to use it.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path
from typing import Annotated, Literal

import torch
from pydantic import Field, ValidationError
from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerBase

from mrt_pipeline.errors import InputError
from mrt_pipeline.policy.language_model import (
    ADAPTERS,
    LoRAParams,
    add_adapters,
    has_adapters,
    load_language_model,
    load_tokenizer,
)
from mrt_pipeline.policy.template import SymbolBacktrackParams, SymbolThinkParams, Template, TemplateParams
from mrt_pipeline.policy.text_backtrack_template import TextBacktrackTemplateParams
from mrt_pipeline.policy.text_template import TextTemplateParams
from mrt_pipeline.policy.tokenizer import build_symbol_tokenizer
from mrt_pipeline.registry import Params, PositiveInt

CARD = "policy_card.json"
AnyTemplate = Annotated[
    SymbolThinkParams | SymbolBacktrackParams | TextTemplateParams | TextBacktrackTemplateParams,
    Field(discriminator="kind"),
]


class PolicyCard(Params):
    """What there is to know of a saved policy besides weights and tokenizer."""

    name: str = Field(default="base", description="what tables call it: base or trained")
    key: str = Field(default="", description="changes with all that made it")
    base: str | None = Field(
        default=None, description="folder or hub id of the model that it comes from, which adapters need; null: none"
    )
    revision: str | None = Field(default=None, description="of a base on the hub")
    dtype: Literal["float32", "bfloat16"] = Field(default="float32", description="of the weights")
    max_length: PositiveInt = Field(description="most tokens of a trace, prompt and answer included")
    lora: LoRAParams | None = Field(default=None, description="how it is trained; null: all weights are")
    gradient_checkpointing: bool = Field(
        default=False, description="recompute activations in the backward pass to save memory"
    )
    template: AnyTemplate


@dataclass(frozen=True)
class Policy:
    """What is sampled from and trained. card: None for one that is never saved."""

    model: torch.nn.Module
    tokenizer: PreTrainedTokenizerBase
    template: Template
    card: PolicyCard | None = None

    @property
    def n_parameters(self) -> int:
        """Number of parameters, tied ones counted once."""
        return sum(p.numel() for p in self.model.parameters())

    def save(self, folder: Path) -> None:
        """Write weights or adapters (safetensors), configuration, tokenizer and card."""
        self.model.save_pretrained(folder)
        self.tokenizer.save_pretrained(folder)
        if self.card is not None:
            write_card(self.card, folder)


def write_card(card: PolicyCard, folder: Path) -> None:
    """Write the card into a policy's folder."""
    (folder / CARD).write_text(card.model_dump_json(indent=2))


@dataclass
class SavedPolicy:
    """A policy that is not opened yet: its card, and the folder that holds it.

    folder: with weights, or adapters on `card.base`; None if the policy is `card.base` as it is.
    Tokenizer and template are read when they are asked for, weights by `open`, and only once.
    """

    card: PolicyCard
    folder: Path | None = None
    _opened: Policy | None = field(default=None, repr=False)
    kept_by: object = field(default=None, repr=False)  # a temporary folder that lives as long as this

    @classmethod
    def read(cls, folder: str | Path) -> "SavedPolicy":
        """What `Policy.save` wrote. Raises InputError for a folder that is none."""
        folder = Path(folder)
        try:
            card = PolicyCard.model_validate_json((folder / CARD).read_text())
        except OSError as error:
            raise InputError(f"{folder} holds no policy: it has no {CARD}") from error
        except (ValidationError, UnicodeDecodeError) as error:
            wrong = error.errors()[0] if isinstance(error, ValidationError) else {"msg": "it is no text"}
            where = ".".join(map(str, wrong.get("loc", ())))
            raise InputError(f"{folder / CARD} is not the card of a policy: {where} {wrong['msg']}") from error
        holds_weights = any((folder / name).is_file() for name in ("config.json", ADAPTERS))
        if not holds_weights and card.base is None:
            raise InputError(f"{folder} holds the card of a policy, but no weights")
        return cls(card, folder if holds_weights else None)

    def called(self, **changes) -> "SavedPolicy":
        """The same policy with another card: name, key, how it is trained."""
        return SavedPolicy(self.card.model_copy(update=changes), self.folder)

    @property
    def start(self) -> str:
        """Folder or hub id of full weights that any engine can start from, perhaps before others are handed over."""
        return str(self.card.base if self.folder is None or self.has_adapters else self.folder)

    @property
    def has_adapters(self) -> bool:
        """Whether it is LoRA adapters on its base, instead of weights."""
        return self.folder is not None and (self.folder / ADAPTERS).is_file()

    @cached_property
    def tokenizer(self) -> PreTrainedTokenizerBase:
        """The tokenizer, without the weights."""
        own = self.folder is not None and (self.folder / "tokenizer_config.json").is_file()
        chat_template = getattr(self.card.template, "chat_template", None)
        if own:
            return load_tokenizer(str(self.folder), None, chat_template)
        return load_tokenizer(self.card.base, self.card.revision, chat_template)

    @cached_property
    def template(self) -> Template:
        """How it thinks and answers, without the weights."""
        return self.card.template.bind(self.tokenizer)

    def open(self) -> Policy:
        """The policy with its weights, on the GPU if there is one; the same object each time."""
        if self._opened is None:
            self._opened = self._load()
            self._opened.model.eval()
        return self._opened

    def close(self) -> None:
        """Let go of the weights."""
        self._opened = None

    def open_to_train(self, seed: int) -> Policy:
        """A copy to be trained as the card says: with LoRA adapters, its own or fresh ones, or all weights.

        seed: of fresh adapters. What was opened before is let go of, as two copies may not fit into memory.
        """
        self.close()
        policy = self._load(trainable=True)
        model = policy.model
        if self.card.lora and not has_adapters(model):
            model = add_adapters(model, **self.card.lora.model_dump(), seed=seed)
        if self.card.gradient_checkpointing:
            model.gradient_checkpointing_enable({"use_reentrant": False})
            model.enable_input_require_grads()
        return replace(policy, model=model)

    def open_apart(self) -> Policy:
        """A copy of its own with its weights as they are, as a reference beside one that is trained."""
        return self._load()

    def _load(self, trainable: bool = False) -> Policy:
        folder = None if self.folder is None else str(self.folder)
        card = self.card
        model = load_language_model(card.base or folder, card.revision, card.dtype, folder, trainable)
        model.to("cuda" if torch.cuda.is_available() else "cpu")
        return Policy(model, self.tokenizer, self.template, card)


def build_policy(
    symbols: Sequence[str],
    markers: Sequence[str],
    template: TemplateParams,
    hidden_size: int,
    n_layers: int,
    n_heads: int,
    intermediate_size: int,
    max_length: int,
    seed: int,
    key: str = "",
) -> Policy:
    """A Llama-style model from scratch over a vocabulary of symbols; sizes as in transformers' LlamaConfig.

    symbols, markers: as in `build_symbol_tokenizer`. template: as a task gives it. key: of its card.
    """
    tokenizer = build_symbol_tokenizer(symbols, markers)
    config = LlamaConfig(
        vocab_size=len(tokenizer),
        hidden_size=hidden_size,
        num_hidden_layers=n_layers,
        num_attention_heads=n_heads,
        num_key_value_heads=n_heads,
        intermediate_size=intermediate_size,
        max_position_embeddings=max_length,
        tie_word_embeddings=True,
        bos_token_id=tokenizer.bos_token_id,
        eos_token_id=tokenizer.eos_token_id,
        pad_token_id=tokenizer.pad_token_id,
    )
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        model = LlamaForCausalLM(config)
    return Policy(
        model, tokenizer, template.bind(tokenizer), PolicyCard(key=key, max_length=max_length, template=template)
    )
