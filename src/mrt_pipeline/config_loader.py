"""A Kedro config loader whose `parameters` are composed by Hydra.

The tree in `conf/base/parameters/` is the only one: `kedro run --params ...`, Kedro-Viz, notebooks and sweeps compose
from it. Runtime parameters are Hydra overrides: the name of a group chooses a file, a dotted key overrides a value. A
user's own group files go into `conf/local/parameters/<group>/`.
"""

import json
import re
from pathlib import Path
from typing import Any

from hydra import compose, initialize_config_dir
from hydra.core.config_store import ConfigStore
from hydra.core.global_hydra import GlobalHydra
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.errors import HydraException
from kedro.config import OmegaConfigLoader
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException
from pydantic import ValidationError

from mrt_pipeline.config import FAMILIES, Parameters
from mrt_pipeline.errors import InputError
from mrt_pipeline.registry import Registered, import_plugins
from mrt_pipeline.rollouts.rollout import GONE


class HydraConfigLoader(OmegaConfigLoader):
    """OmegaConfigLoader, but for `parameters`: composed by Hydra and validated against `config.Parameters`."""

    def __getitem__(self, key: str) -> dict[str, Any]:
        if key != "parameters":
            return super().__getitem__(key)
        folder = Path(self.conf_source).resolve() / (self.base_env or "") / "parameters"
        own = Path(self.conf_source).resolve() / (self.env or self.default_run_env or "") / "parameters"
        return compose_parameters(folder, self.runtime_params or {}, own if own.is_dir() else None)


def compose_parameters(folder: Path, overrides: dict[str, Any], own: Path | None = None) -> dict[str, Any]:
    """Compose and validate the parameter tree in `folder`; `own` may hold further group files.

    overrides: keys may be nested or dotted; strings are read as Hydra reads them.
    Raises InputError that names the key and the ones allowed.
    """
    arguments = [f"{key}={_hydra_value(value)}" for key, value in flatten(overrides).items()]
    if own is not None:
        _refuse_shadowed(own, folder)
        arguments.append(f"hydra.searchpath=['file://{own}']")
    import_given_plugins(overrides)
    outer, GlobalHydra.instance().hydra = GlobalHydra.instance().hydra, None  # a sweep calls this from inside Hydra
    try:
        _offer_members([folder, own] if own else [folder], overrides)
        with initialize_config_dir(str(folder), version_base="1.3"):
            config = compose("config", overrides=arguments)
        tree = OmegaConf.to_container(config, resolve=True, throw_on_missing=True)
    except (HydraException, OmegaConfBaseException) as error:
        raise InputError(_explain_composition(error, folder, arguments)) from error
    finally:
        GlobalHydra.instance().hydra = outer
    try:
        return Parameters.model_validate(tree).model_dump()
    except ValidationError as error:
        raise InputError(_explain_validation(error, tree)) from error


def import_given_plugins(overrides: dict[str, Any]) -> None:
    """Import the modules of `plugins=[...]`, so that the names they register can be chosen."""
    if "plugins" in overrides:
        given = OverridesParser.create().parse_override(f"plugins={_hydra_value(overrides['plugins'])}").value()
        import_plugins([str(module) for module in ([given] if isinstance(given, str) else given or [])])


def _offer_members(folders: list[Path], overrides: dict[str, Any]) -> None:
    """Members of a family that have no group file, as those of other packages and of plugins, can be chosen as well.

    Their values are the defaults of their class; what has none must be given.
    """
    for group, family in FAMILIES.items():
        chosen = str(overrides.get(group, ""))
        for name in {*family.imported(), *({chosen} & {*family.names()})} - family.builtin.keys():
            if not any((folder / group / f"{name}.yaml").exists() for folder in folders):
                ConfigStore.instance().store(group=group, name=name, node=_defaults(family.member(name)))


def _defaults(member: type[Registered]) -> dict[str, Any]:
    missing = {name: "???" for name, field in member.model_fields.items() if field.is_required()}
    return {**member.model_construct().model_dump(mode="json", warnings=False), **missing}


def _refuse_shadowed(own: Path, folder: Path) -> None:
    """Hydra looks into the shipped folder first, so a user's file of the same name would be ignored without a word."""
    for file in own.rglob("*.yaml"):
        if (folder / file.relative_to(own)).exists():
            raise InputError(f"{file} has the name of a shipped file and would be ignored: give it another name")


def flatten(tree: dict[str, Any], prefix: str = "") -> dict[str, Any]:
    """Nested keys joined by dots: {"a": {"b": 1}} becomes {"a.b": 1}."""
    flat: dict[str, Any] = {}
    for key, value in tree.items():
        if isinstance(value, dict):
            flat |= flatten(value, f"{prefix}{key}.")
        else:
            flat[f"{prefix}{key}"] = value
    return flat


def _hydra_value(value: Any, inside: bool = False) -> str:
    """In Hydra's grammar. A string is already in it, unless it stands inside a list or a dictionary."""
    if isinstance(value, dict):
        return "{" + ", ".join(f"{key}: {_hydra_value(part, True)}" for key, part in value.items()) + "}"
    if isinstance(value, list | tuple):
        return "[" + ", ".join(_hydra_value(part, True) for part in value) + "]"
    if isinstance(value, str):
        return _quoted(value) if inside else value
    return json.dumps(value)


def _quoted(text: str) -> str:
    """As a quoted string of Hydra: only quotes, and backslashes right before one, are escaped."""
    escaped = re.sub(r'(\\*)"', lambda found: found.group(1) * 2 + '\\"', text)
    return '"' + re.sub(r"(\\+)$", lambda found: found.group(1) * 2, escaped) + '"'


def _explain_composition(error: Exception, folder: Path, arguments: list[str]) -> str:
    message = str(error).split("\nConfig search path")[0].split("\nTo append")[0]
    missing = re.search(r"Could not override '([^']+)'", message)
    if not missing:
        return f"cannot compose the parameters: {message}"
    key = missing.group(1)
    if key in GONE:
        return f"'{key}' is no parameter any more: {GONE[key]}"
    parent = key.rpartition(".")[0]
    groups = [
        argument
        for argument in arguments
        if (folder / argument.partition("=")[0]).is_dir() or argument.startswith("hydra.")
    ]
    with initialize_config_dir(str(folder), version_base="1.3"):
        config = compose("config", overrides=groups)
    node = OmegaConf.select(config, parent) if parent else config
    allowed = f"; allowed here: {', '.join(sorted(map(str, node)))}" if isinstance(node, DictConfig) else ""
    return f"unknown parameter '{key}'{allowed}"


def _explain_validation(error: ValidationError, tree: dict[str, Any]) -> str:
    lines = ["the parameters do not fit:"]
    for item in error.errors():
        group, *rest = item["loc"] or ("parameters",)
        node = tree.get(group)
        for part in tuple(rest):
            if isinstance(node, dict) and part not in node and part == node.get("kind"):
                rest.remove(part)  # pydantic names the member of a union there, which is no key
            else:
                node = node.get(part) if isinstance(node, dict) else None
        key = ".".join(str(part) for part in (group, *rest))
        if item["type"] == "extra_forbidden":
            lines.append(f"  {key}: {GONE.get(key, 'unknown parameter')}")
        else:
            given = "" if isinstance(item["input"], dict) else f" (given: {item['input']!r})"
            lines.append(f"  {key}: {item['msg']}{given}")
    return "\n".join(lines)
