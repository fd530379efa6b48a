r"""Families of reasoning models that think between `<think>` and `</think>`: who opens the thought, what asks for it.

| family | who opens the thought |
| --- | --- |
| r1 | the chat template, at the end of its generation prompt: DeepSeek-R1 and its distillates, Qwen3 thinking models |
| qwen3 | the model, unless its chat template is told `enable_thinking=False`: hybrid Qwen3 models |
| think | the model: its chat template knows nothing of thinking |

Where the model would open it, the opening is put in, so that every thought begins after it. The instruction is what the
model cards of DeepSeek-R1 and of Qwen3 recommend for mathematical problems.
"""

from dataclasses import dataclass

from transformers import PreTrainedTokenizerBase

from mrt_pipeline.errors import InputError

OPEN, CLOSE = "<think>", "</think>"
_INSTRUCTION = "\nPlease reason step by step, and put your final answer within \\boxed{}."


@dataclass(frozen=True)
class Family:
    """opening: put after the generation prompt. suffix: put after every question. close: ends the thought."""

    name: str
    opening: str
    suffix: str = _INSTRUCTION
    close: str = CLOSE


FAMILIES = {
    family.name: family for family in (Family("r1", ""), Family("qwen3", f"{OPEN}\n"), Family("think", f"{OPEN}\n"))
}


def find_family(tokenizer: PreTrainedTokenizerBase, name: str = "auto") -> Family:
    """The family by its name, or (auto) the one that the tokenizer's chat template shows.

    Raises InputError if the chosen family does not fit what the chat template does.
    """
    prompt = tokenizer.apply_chat_template(
        [{"role": "user", "content": "?"}], tokenize=False, add_generation_prompt=True
    )
    opened = prompt.rstrip().endswith(OPEN)
    if name == "auto":
        named = "qwen3" if "enable_thinking" in str(tokenizer.chat_template) else "think"
        return FAMILIES["r1" if opened else named]
    if opened != (name == "r1"):
        does = "opens the thought itself" if opened else "does not open the thought"
        raise InputError(
            f"policy.template.family is {name}, but the model's chat template {does}: set it to auto, or give "
            "policy.template.chat_template"
        )
    return FAMILIES[name]
