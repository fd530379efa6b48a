"""Traces as one reads them: an episode a line, with J after it."""

from collections.abc import Callable, Sequence

from mrt_pipeline.rollouts.label import LabelledRollout


def render_traces(rollouts: Sequence[LabelledRollout], decode: Callable[..., str]) -> str:
    """Plain text of a few labelled traces."""
    return "\n\n".join(_render(labelled, decode) for labelled in rollouts)


def _render(labelled: LabelledRollout, decode: Callable[..., str]) -> str:
    rollout = labelled.rollout
    lines = [
        f"{rollout.problem.question}    [{rollout.grade.value}, stopped by {rollout.stop_reason}]",
        f"  J {labelled.success[0]:.2f}",
    ]
    for start, end, before, after in zip(
        labelled.boundaries[:-1], labelled.boundaries[1:], labelled.success[:-1], labelled.success[1:], strict=True
    ):
        lines.append(f"  J {after:.2f} ({after - before:+.2f})  {decode(rollout.thought[start:end])}")
    lines.append(f"  answer: {rollout.answer_text}")
    return "\n".join(lines)
