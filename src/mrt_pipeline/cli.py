"""The project's `kedro run`: Kedro's own, with Hydra overrides as `--params` and readable errors."""

import copy
import os
import sys
import warnings
from pathlib import Path

import click
from kedro import KedroDeprecationWarning
from kedro.framework.cli.project import run as kedro_run
from kedro.utils import find_kedro_project

from mrt_pipeline.errors import InputError


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


@click.group(name="mrt-pipeline")
def cli() -> None:
    """Commands of this project."""


def enter_project(usage: str) -> Path | None:
    """For commands run as modules: go to the project's folder and return it; None if they end here, having said why.

    usage: what is printed for --help.
    """
    if {"-h", "--help"} & set(sys.argv):
        print(usage)
        return None
    project = find_kedro_project(Path.cwd())
    if project is None:
        raise InputError("run this inside the project's folder (the one with pyproject.toml)")
    os.chdir(project)
    return project


# What a pipeline runs with if nothing else is asked for; the tree's own defaults are those of mrt_rl.
PIPELINE_DEFAULTS = {"mrt_star": {"algorithm": "mrt_star", "training": "star"}}


def _run(**arguments):
    os.chdir(find_kedro_project(Path.cwd()) or Path.cwd())  # paths in data/ are relative to the project
    names = [arguments["pipeline"], *(arguments["pipelines"] or [])]
    defaults = next((PIPELINE_DEFAULTS[name] for name in names if name in PIPELINE_DEFAULTS), {})
    arguments["params"] = {**defaults, **(arguments["params"] or {})}
    if "compare" in names and "runs" in arguments["params"]:  # the short form of its one required parameter
        given = arguments["params"].pop("runs")
        arguments["params"]["compare.runs"] = given if given.startswith("[") else f"'{given}'"
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", KedroDeprecationWarning)  # --pipeline is what users type; it is to stay
        try:
            return kedro_run.callback(**arguments)
        except (InputError, FloatingPointError) as error:
            raise click.ClickException(str(error)) from error


run = copy.copy(kedro_run)
run.params = [copy.copy(option) for option in kedro_run.params]
next(option for option in run.params if option.name == "params").callback = parse_overrides
run.callback = _run
cli.add_command(run)
