"""Traces as one reads them: an episode a line, with J after it."""

from collections.abc import Callable, Sequence
from itertools import pairwise

from mrt_pipeline.rollouts.label import LabelledRollout


def render_traces(rollouts: Sequence[LabelledRollout], decode: Callable[..., str]) -> str:
    """Plain text of a few labelled traces."""
    traces = []
    for labelled in rollouts:
        rollout, success = labelled.rollout, labelled.success
        lines = [
            f"{rollout.problem.question}    [{rollout.grade.value}, stopped by {rollout.stop_reason}]",
            f"  J {success[0]:.2f}",
        ]
        for (start, end), (before, after) in zip(pairwise(labelled.boundaries), pairwise(success), strict=True):
            lines.append(f"  J {after:.2f} ({after - before:+.2f})  {decode(rollout.thought[start:end])}")
        traces.append("\n".join([*lines, f"  answer: {rollout.answer_text}"]))
    return "\n\n".join(traces)
