r"""Families of reasoning models that think between `<think>` and `</think>`: who opens the thought, what asks for it.

| family | who opens the thought |
| --- | --- |
| r1 | the chat template, at the end of its generation prompt: DeepSeek-R1 and its distillates, Qwen3 thinking models |
| qwen3 | the model, unless its chat template is told `enable_thinking=False`: hybrid Qwen3 models |
| think | the model: its chat template knows nothing of thinking |

Where the model would open it, the opening is put in, so that every thought begins after it. The instruction is what the
model cards of DeepSeek-R1 and of Qwen3 recommend for mathematical problems.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from mrt_pipeline.errors import InputError

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

OPEN, CLOSE = "<think>", "</think>"
INSTRUCTION = "\nPlease reason step by step, and put your final answer within \\boxed{}."
OPENINGS = {"r1": "", "qwen3": f"{OPEN}\n", "think": f"{OPEN}\n"}
"""What is put after the generation prompt, by family."""


def find_family(tokenizer: PreTrainedTokenizerBase, name: str = "auto") -> str:
    """The family by its name, or (auto) the one that the tokenizer's chat template shows.

    Raises InputError if the chosen family does not fit what the chat template does.
    """
    asked = [{"role": "user", "content": "?"}]
    prompt = tokenizer.apply_chat_template(asked, tokenize=False, add_generation_prompt=True)
    opened = str(prompt).rstrip().endswith(OPEN)
    if name == "auto":
        return "r1" if opened else "qwen3" if "enable_thinking" in str(tokenizer.chat_template) else "think"
    if opened != (name == "r1"):
        does = "opens the thought itself" if opened else "does not open the thought"
        raise InputError(
            f"policy.template.family is {name}, but the model's chat template {does}: set it to auto, or give "
            "policy.template.chat_template"
        )
    return name
