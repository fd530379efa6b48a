"""The project's `kedro run`: Kedro's own, with Hydra overrides as `--params` and readable errors.

Kedro reads this file for every command, so what takes seconds to import is imported when a run is certain.
"""

import copy
import os
import sys
import warnings
from pathlib import Path

import click
from kedro import KedroDeprecationWarning
from kedro.framework.cli.project import run as kedro_run
from kedro.utils import find_kedro_project

from mrt_pipeline.config_loader import PIPELINE_DEFAULTS, choices, project_parameters
from mrt_pipeline.errors import InputError
from mrt_pipeline.paths import OUTSIDE, enter_project


def parse_overrides(ctx: click.Context, param: click.Parameter, value: str | dict | None) -> dict[str, str]:
    """Split `group=file,key.path=value,...` at the commas outside brackets and quotes; order and dots are kept."""
    if isinstance(value, dict):
        return value
    items, depth, quote = [""], 0, ""
    for character in value or "":
        if quote:
            quote = "" if character == quote else quote
        elif character in "'\"":
            quote = character
        elif character in "[{(":
            depth += 1
        elif character in "]})":
            depth -= 1
        elif character == "," and depth == 0:
            items.append("")
            continue
        items[-1] += character
    overrides = {}
    for item in filter(None, map(str.strip, items)):
        key, equals, given = item.partition("=")
        if not equals or not key.strip():
            raise click.BadParameter(f"'{item}' is not of the form key=value", ctx, param)
        overrides[key.strip()] = given.strip()
    return overrides


def outside_a_project() -> None:
    """Kedro calls this before any command: `kedro run` where there is no project says where conf/ is looked for."""
    if "run" in sys.argv[1:2] and find_kedro_project(Path.cwd()) is None:
        sys.exit(f"Error: {OUTSIDE}")


@click.group(name="mrt-pipeline")
def cli() -> None:
    """Commands of this project."""


PIPELINES = (
    *("mrt_rl", "mrt_star", "ingest", "base_policy", "rollout", "progress", "train", "evaluate_base"),
    *("evaluate_trained", "evaluate", "compare", "plan", "diagnose", "audit"),
)
"""Those of pipeline_registry.py, which takes long to import."""


class Run(click.Command):
    """Kedro's `run`, which says what can be chosen and refuses what cannot, before anything heavy is imported."""

    def format_epilog(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """The groups of parameters with their choices, and two examples."""
        with formatter.section("Pipelines"):
            formatter.write_text(", ".join(PIPELINES))
        with formatter.section("Groups of parameters (--params group=choice, group.key=value; docs/parameters.md)"):
            formatter.write_dl([(group, ", ".join(names)) for group, names in choices(enter_project()).items()])
        with formatter.section("Examples"):
            formatter.write_text("kedro run --pipeline=mrt_rl --params preset=smoke")
            formatter.write_text('kedro run --pipeline=mrt_rl --params "algorithm=grpo,seed=3,training.groups=16"')

    def invoke(self, ctx: click.Context) -> None:
        """Check the request, then run."""
        project = enter_project()  # paths in data/ are relative to it
        given = ctx.params
        names = [*filter(None, [given["pipeline"]]), *(given["pipelines"] or [])]
        defaults = next((PIPELINE_DEFAULTS[name] for name in names if name in PIPELINE_DEFAULTS), {})
        given["params"] = {**defaults, **(given["params"] or {})}
        if "compare" in names and "runs" in given["params"]:  # the short form of its one required parameter
            runs = given["params"].pop("runs")
            given["params"]["compare.runs"] = runs if runs.startswith("[") else f"'{runs}'"
        try:
            _check(project, names, given["env"] or os.environ.get("KEDRO_ENV"), given["params"])
            with warnings.catch_warnings():
                warnings.simplefilter("ignore", KedroDeprecationWarning)  # --pipeline is what users type; it is to stay
                super().invoke(ctx)
        except (InputError, FloatingPointError) as error:
            raise click.ClickException(str(error)) from error


def _check(project: Path, names: list[str], env: str | None, params: dict[str, str]) -> None:
    """Raise InputError for what is not there, and for parameters that do not fit."""
    conf = project / "conf"
    environments = sorted(folder.name for folder in conf.iterdir() if folder.is_dir())
    if env and env not in environments:
        raise InputError(f"there is no environment '{env}' in {conf}; there are: {', '.join(environments)}")
    for name in names:
        if name not in PIPELINES:
            raise InputError(f"there is no pipeline '{name}'; there are: {', '.join(PIPELINES)}")
    project_parameters(project, params, env)


run = Run("run", callback=kedro_run.callback, help="Run a pipeline.")
run.params = [copy.copy(option) for option in kedro_run.params]
next(option for option in run.params if option.name == "params").callback = parse_overrides
cli.add_command(run)
