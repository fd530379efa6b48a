"""A policy: a causal language model with its tokenizer and template; building, saving, loading."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from transformers import AutoModelForCausalLM, AutoTokenizer, LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerBase
from transformers.utils.logging import disable_progress_bar

from mrt_pipeline.policy.template import Template
from mrt_pipeline.policy.tokenizer import build_symbol_tokenizer

disable_progress_bar()  # one bar for each small file loaded or saved would bury the training's own

TemplateOf = Callable[[PreTrainedTokenizerBase], Template]


@dataclass(frozen=True)
class Policy:
    """What is sampled from and trained."""

    model: torch.nn.Module
    tokenizer: PreTrainedTokenizerBase
    template: Template

    @property
    def n_parameters(self) -> int:
        """Number of parameters, tied ones counted once."""
        return sum(p.numel() for p in self.model.parameters())

    def save(self, folder: Path) -> None:
        """Write weights (safetensors), configuration and tokenizer."""
        self.model.save_pretrained(folder)
        self.tokenizer.save_pretrained(folder)


def build_policy(
    symbols: Sequence[str],
    markers: Sequence[str],
    template: TemplateOf,
    hidden_size: int,
    n_layers: int,
    n_heads: int,
    intermediate_size: int,
    max_length: int,
    seed: int,
) -> Policy:
    """A Llama-style model from scratch over a vocabulary of symbols; sizes as in transformers' LlamaConfig.

    symbols, markers: as in `build_symbol_tokenizer`. template: from a tokenizer, as a task gives it.
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
    return Policy(model, tokenizer, template(tokenizer))


def load_policy(folder: Path, template: TemplateOf) -> Policy:
    """Load a policy that `Policy.save` wrote; its template is not saved, so it is given."""
    model = AutoModelForCausalLM.from_pretrained(
        folder, dtype=torch.float32, use_safetensors=True, local_files_only=True
    )
    tokenizer = AutoTokenizer.from_pretrained(folder)
    return Policy(model, tokenizer, template(tokenizer))
