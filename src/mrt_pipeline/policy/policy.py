"""A policy: a causal language model with its tokenizer and template; building, saving, opening, training on.

A saved policy is a folder with weights or LoRA adapters (safetensors), the tokenizer, and a card, `policy_card.json`:
what the weights are of, and how the policy thinks and answers. So the folder alone says how to use it.
"""

from __future__ import annotations

import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal, cast

from pydantic import Field, ValidationError

from mrt_pipeline.errors import InputError
from mrt_pipeline.policy.template import (
    SymbolBacktrackParams,
    SymbolThinkParams,
    Template,
    TemplateParams,
    build_symbol_tokenizer,
)
from mrt_pipeline.policy.text_template import TextBacktrackTemplateParams, TextTemplateParams
from mrt_pipeline.registry import Fraction, Params, PositiveFloat, PositiveInt

if TYPE_CHECKING:
    import torch
    from peft import PeftModel
    from transformers import PreTrainedModel, PreTrainedTokenizerBase

    Model = PreTrainedModel | PeftModel

# peft 0.21 asks a model by the name that transformers 5.2x calls deprecated, whatever we do.
warnings.filterwarnings("ignore", "`is_gradient_checkpointing` is deprecated", FutureWarning)
CARD = "policy_card.json"
ADAPTERS = "adapter_config.json"
"""The file of peft that says that a folder holds adapters."""
AnyTemplate = Annotated[
    SymbolThinkParams | SymbolBacktrackParams | TextTemplateParams | TextBacktrackTemplateParams,
    Field(discriminator="kind"),
]


class LoRAParams(Params):
    """Low-rank adapters on all linear layers, by peft; the base policy is the model without them."""

    rank: PositiveInt = Field(description="rank of the adapters")
    alpha: PositiveFloat = Field(description="scale: adapters are multiplied by alpha / rank")
    dropout: Fraction = Field(description="dropout on the adapters' input")


class PolicyCard(Params):
    """What there is to know of a saved policy besides weights and tokenizer.

    name: what tables call it, base or trained. key: changes with all that made it.
    base: folder or hub id of the model that it comes from, which adapters need. The rest: as in `LanguageModelPolicy`.
    """

    name: str = "base"
    key: str = ""
    base: str | None = None
    revision: str | None = None
    dtype: Literal["float32", "bfloat16"] = "float32"
    max_length: PositiveInt
    lora: LoRAParams | None = None
    gradient_checkpointing: bool = False
    template: AnyTemplate


@dataclass(frozen=True)
class Policy:
    """What is sampled from and trained. card: None for one that is never saved."""

    model: Model
    tokenizer: PreTrainedTokenizerBase
    template: Template
    card: PolicyCard | None = None

    def save(self, folder: Path) -> None:
        """Write weights or adapters (safetensors), configuration, tokenizer and card."""
        self.model.save_pretrained(str(folder))
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
    """

    card: PolicyCard
    folder: Path | None = None
    _opened: Policy | None = field(default=None, repr=False)
    kept_by: object = field(default=None, repr=False)  # a temporary folder that lives as long as this

    @classmethod
    def read(cls, folder: str | Path) -> SavedPolicy:
        """What `Policy.save` wrote. Raises InputError for a folder that is none."""
        folder = Path(folder)
        try:
            card = PolicyCard.model_validate_json((folder / CARD).read_bytes())
        except OSError as error:
            raise InputError(f"{folder} holds no policy: it has no {CARD}") from error
        except ValidationError as error:
            wrong = error.errors()[0]
            where = ".".join(map(str, wrong["loc"]))
            raise InputError(f"{folder / CARD} is not the card of a policy: {where} {wrong['msg']}") from error
        holds_weights = any((folder / name).is_file() for name in ("config.json", ADAPTERS))
        if not holds_weights and card.base is None:
            raise InputError(f"{folder} holds the card of a policy, but no weights")
        return cls(card, folder if holds_weights else None)

    def called(self, **changes) -> SavedPolicy:
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
        place, revision = (self.folder, None) if own else (self.card.base, self.card.revision)
        return load_tokenizer(str(place), revision, chat_template)

    @property
    def context_length(self) -> int:
        """Most tokens that the model was made for, from its configuration. Raises InputError if that cannot be had."""
        from transformers import AutoConfig

        with _said_in_words(self.start):
            config = AutoConfig.from_pretrained(self.start, revision=self.card.revision)
        return int(config.max_position_embeddings)

    @cached_property
    def template(self) -> Template:
        """How it thinks and answers, without the weights."""
        return self.card.template.bind(self.tokenizer)

    def open(self) -> Policy:
        """The policy with its weights, on the GPU if there is one; the same object each time."""
        if self._opened is None:
            self._opened = self.open_apart()
            self._opened.model.eval()
        return self._opened

    def open_to_train(self, seed: int, new_tokens: Sequence[str] = ()) -> Policy:
        """A copy to be trained as the card says: with LoRA adapters, its own or fresh ones, or all weights.

        seed: of fresh weights. new_tokens: added to the vocabulary. What was opened before is let go of, as two copies
        may not fit into memory.
        """
        from peft import PeftModel

        self._opened = None
        policy = self.open_apart(trainable=True, new_tokens=new_tokens, seed=seed)
        model = policy.model
        if self.card.lora and not isinstance(model, PeftModel):
            model = add_adapters(model, **self.card.lora.model_dump(), seed=seed)
        if self.card.gradient_checkpointing:
            enable = getattr(model, "activation_checkpointing_enable", None)  # its new name, from transformers 5.2x on
            (enable or model.gradient_checkpointing_enable)({"use_reentrant": False})
            model.enable_input_require_grads()
        return replace(policy, model=model)

    def open_apart(self, trainable: bool = False, new_tokens: Sequence[str] = (), seed: int = 0) -> Policy:
        """A copy of its own with its weights as they are. trainable: adapters that it has are to be trained on.

        new_tokens: added to the vocabulary, with weights drawn by `seed`.
        """
        import torch

        adapters = self.folder if self.has_adapters else None
        model = load_language_model(self.start, self.card.revision, self.card.dtype, adapters, trainable)
        if new_tokens:
            self.tokenizer.add_tokens(list(new_tokens))
            with torch.random.fork_rng():
                torch.manual_seed(seed)
                model.resize_token_embeddings(len(self.tokenizer))
        model.to("cuda" if torch.cuda.is_available() else "cpu")  # type: ignore[arg-type]  # transformers wraps it
        return Policy(model, self.tokenizer, self.template, self.card)


def shipped_base(key: str) -> SavedPolicy | None:
    """The base policy that ships with this package for the configuration of that key, if there is one."""
    for card in (Path(__file__).parent / "bases").glob(f"*/{CARD}"):
        saved = SavedPolicy.read(card.parent)
        if saved.card.key == key:
            return saved
    return None


def load_tokenizer(path: str, revision: str | None, chat_template: str | None) -> PreTrainedTokenizerBase:
    """The tokenizer, with another chat template if one is given. Raises InputError if it cannot be had."""
    from transformers import AutoTokenizer

    with _said_in_words(path):
        tokenizer = AutoTokenizer.from_pretrained(path, revision=revision)
    if chat_template is not None:
        tokenizer.chat_template = chat_template
    return tokenizer


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
    """A Llama-style model from scratch over a vocabulary of symbols; see `build_symbol_tokenizer` and LlamaConfig."""
    import torch
    from transformers import LlamaConfig, LlamaForCausalLM

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
    card = PolicyCard(key=key, max_length=max_length, template=cast(AnyTemplate, template))
    return Policy(model, tokenizer, template.bind(tokenizer), card)
