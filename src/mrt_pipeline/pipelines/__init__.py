"""The pipelines: wiring, and thin nodes. Each stage of the main job is a namespace, a box in Kedro-Viz."""

from collections.abc import Callable

from kedro.pipeline import Node, Pipeline
from transformers.utils.logging import disable_progress_bar

disable_progress_bar()  # one bar for each small file loaded or saved would bury the training's own

ACTING = ["params:task", "params:engine", "params:rollout"]
"""What makes a policy act."""

Names = str | list[str] | None


def stage(name: str | None, *steps: tuple[Callable, Names, Names], **renamed: dict[str, str]) -> Pipeline:
    """A box of nodes; None: nodes without a box. steps: function, inputs, outputs; nodes are called as functions.

    renamed: `inputs` and `outputs`, where datasets are called otherwise outside.
    """
    nodes = [Node(function, given, made, name=function.__name__) for function, given, made in steps]
    return Pipeline(nodes, namespace=name, prefix_datasets_with_namespace=False, **renamed)
