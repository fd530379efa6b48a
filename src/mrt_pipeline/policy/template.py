"""How a policy thinks and answers: the token ids around the thought."""

from dataclasses import dataclass

from transformers import PreTrainedTokenizerBase


@dataclass(frozen=True)
class ThinkTemplate:
    """Token ids that structure a trace `prompt + thought + close + answer + eos`.

    close_id: the token that ends a thought, `</think>`; the model samples it when it has thought enough.
    eos_id: ends the answer.
    stop_phrase: put after a thought that is cut short, to force an answer; ends with close_id or goes past it.
    continuation: put in place of close_id when the thought is forced on (budget forcing).
    marker_ids: tokens that open a new episode.
    """

    close_id: int
    eos_id: int
    stop_phrase: tuple[int, ...]
    continuation: tuple[int, ...]
    marker_ids: frozenset[int]

    @classmethod
    def from_text(
        cls,
        tokenizer: PreTrainedTokenizerBase,
        think_close: str,
        stop_phrase: str,
        continuation: str,
        episode_markers: list[str],
    ) -> "ThinkTemplate":
        """Build from strings. Raises ValueError where a string that must be one token is none."""

        def encode(text: str) -> list[int]:
            ids = tokenizer.encode(text, add_special_tokens=False)
            if not ids or tokenizer.unk_token_id in ids:
                raise ValueError(f"the tokenizer does not know {text!r}; check the think/answer template")
            return ids

        def single(text: str) -> int:
            ids = encode(text)
            if len(ids) != 1:
                raise ValueError(f"{text!r} must be one token of this policy's tokenizer, but is {len(ids)}")
            return ids[0]

        return cls(
            close_id=single(think_close),
            eos_id=tokenizer.eos_token_id,
            stop_phrase=tuple(encode(stop_phrase)),
            continuation=tuple(encode(continuation)),
            marker_ids=frozenset(single(marker) for marker in episode_markers),
        )


def encode_prompt(tokenizer: PreTrainedTokenizerBase, question: str) -> list[int]:
    """The question in the policy's chat template, up to and including the opening of the thought."""
    text = tokenizer.apply_chat_template(
        [{"role": "user", "content": question}], tokenize=False, add_generation_prompt=True
    )
    return tokenizer.encode(text, add_special_tokens=False)
