"""What `kedro run` says: what will run, a line a node, bars for what lasts, and in the end what was found and where.

Logs go to the console as conf/logging.yml says, above the bars. Nothing here decides or changes what is computed.
"""

import logging
import sys
import time
from contextlib import ExitStack
from functools import partial
from typing import TYPE_CHECKING, Any

from kedro.framework.hooks import hook_impl

from mrt_pipeline import bars
from mrt_pipeline.errors import InputError
from mrt_pipeline.paths import data_folder

if TYPE_CHECKING:
    from kedro.io import DataCatalog
    from kedro.pipeline import Pipeline
    from kedro.pipeline.node import Node

logger = logging.getLogger(__name__)
_NAMED = {"algorithm": "algorithm.name", "task": "task.name", "policy": "policy.name", "seed": "seed"}
_REPORTS = {  # what a run that makes one ends with: the beginning of the file
    "report": "report.md",
    "comparison_report": "compare/comparison.md",
    "plan_report": "plan.md",
    "diagnosis_report": "diagnosis.md",
    "audit_report": "audit/report.html",
}
_BLOCKS = 3  # of a report: its title, the verdict, the first table
_LINE = "{desc}: {percentage:.0f} % of {total_fmt} in {elapsed}, {remaining} left"
_SERVED = "  (`mlflow ui` serves it)"  # where there is no server
_SOON, _NOW_AND_THEN = 2.0, 60.0  # seconds: until a bar is shown; between lines where there is no terminal


class ConsoleHook:
    """Kedro calls it last at the beginning of a run and at its end, after tracking: see settings.HOOKS."""

    def __init__(self) -> None:
        self._began, self._n_nodes, self._n_done = 0.0, 0, 0
        self._pipelines = ""
        self._started: dict[str, float] = {}
        self._bars = ExitStack()

    @hook_impl
    def before_pipeline_run(self, run_params: dict[str, Any], pipeline: "Pipeline", catalog: "DataCatalog") -> None:
        """Say what will run and where it is tracked; show bars from here on."""
        from mrt_pipeline.tracking.runs import run_id, run_url

        self._began, self._n_nodes, self._n_done = time.monotonic(), len(pipeline.nodes), 0
        self._pipelines = "+".join(run_params.get("pipeline_names") or ["mrt_rl"])
        self._bars.close()
        self._bars = _show_bars()
        logging.getLogger("kedro.runner").setLevel(logging.NOTSET)  # see on_node_error
        used = {name.removeprefix("params:").split(".")[0] for name in pipeline.inputs()}
        named = [f"{name} {catalog.load(f'params:{path}')}" for name, path in _NAMED.items() if name in used]
        nodes = f"{self._n_nodes} node{'' if self._n_nodes == 1 else 's'}"
        logger.info("%s", ", ".join([f"{self._pipelines}: {nodes}", *named]))
        if where := run_url() or run_id():
            logger.info("MLflow: %s", where)

    @hook_impl
    def before_node_run(self, node: "Node") -> None:
        """Note the time."""
        self._started[node.name] = time.monotonic()

    @hook_impl
    def after_node_run(self, node: "Node") -> None:
        """A line."""
        self._n_done += 1
        self._tell(node, "")

    @hook_impl
    def on_node_error(self, error: Exception, node: "Node") -> None:
        """A line; what is wrong is said in the end. A refusal needs no advice of Kedro's on how to go on."""
        self._n_done += 1
        if isinstance(error, InputError | FloatingPointError):
            logging.getLogger("kedro.runner").setLevel(logging.ERROR)
        self._tell(node, ", failed")

    def _tell(self, node: "Node", how: str) -> None:
        took = duration(time.monotonic() - self._started.pop(node.name))
        logger.info("%*d/%d %s  %s%s", len(str(self._n_nodes)), self._n_done, self._n_nodes, node.name, took, how)

    @hook_impl
    def on_pipeline_error(self) -> None:
        """No bars any more."""
        self._bars.close()

    @hook_impl
    def after_pipeline_run(self, pipeline: "Pipeline", catalog: "DataCatalog") -> None:
        """Print the verdict, a small table and where to look next."""
        from mlflow import get_tracking_uri

        from mrt_pipeline.tracking.runs import run_url, waiting

        self._bars.close()
        logger.info("%s finished in %s", self._pipelines, duration(time.monotonic() - self._began))
        if made := [name for name in _REPORTS if name in pipeline.all_outputs()]:
            text = catalog.load(made[0])
            _, *shown = text.split("\n\n")[:_BLOCKS]
            print("\n" + "\n\n".join(block.strip("\n") for block in shown) + "\n")
            print(f"All tables    {data_folder() / '08_reporting' / _REPORTS[made[0]]}")
            if url := run_url():
                print(f"This run      {url}{'' if get_tracking_uri().startswith('http') else _SERVED}")
            print("The pipeline  `kedro viz run`")
        if left := waiting():
            print(left)


def duration(seconds: float) -> str:
    """Readable: 2.4 s, 3 min 20 s, 2 h 5 min."""
    if seconds < 60:
        return f"{seconds:.1f} s"
    minutes, rest = divmod(round(seconds), 60)
    return f"{minutes} min {rest} s" if minutes < 60 else f"{minutes // 60} h {minutes % 60} min"


def _show_bars() -> ExitStack:
    """Bars below the logs on a terminal; elsewhere a line in the log now and then. Closed, there are none."""
    from tqdm import tqdm
    from tqdm.contrib.logging import logging_redirect_tqdm

    class Lines(tqdm):
        """Where a line of text can not be changed."""

        _said = 0.0

        def display(self, msg: str | None = None, pos: int | None = None) -> None:
            now = time.time()
            if msg is None and now - max(self._said, self.start_t) >= _NOW_AND_THEN:
                self._said = now
                logger.info("%s", str(self))

    stack = ExitStack()
    stack.callback(bars.show, None)
    if sys.stderr.isatty():
        bars.show(partial(tqdm, leave=False, delay=_SOON, dynamic_ncols=True))
        stack.enter_context(logging_redirect_tqdm())
    else:
        bars.show(partial(Lines, leave=False, delay=_NOW_AND_THEN, bar_format=_LINE))
    return stack
