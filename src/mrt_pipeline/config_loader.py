"""A Kedro config loader whose `parameters` are composed by Hydra.

There is one tree: the files in `conf/base/parameters/`, a user's own in `conf/local/parameters/<group>/`, and the
defaults of the classes that the parameters configure (`config.CLASSES`), which can be chosen like files. `kedro run
--params ...`, Kedro-Viz, notebooks and sweeps compose from it. Runtime parameters are Hydra overrides: the name of a
group chooses a form, a dotted key overrides a value.
"""

import json
import re
from pathlib import Path
from typing import Any, ClassVar, cast

from hydra import compose, initialize_config_dir
from hydra.core.config_search_path import ConfigSearchPath
from hydra.core.global_hydra import GlobalHydra
from hydra.core.object_type import ObjectType
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.plugins import Plugins
from hydra.errors import HydraException, MissingConfigException, OverrideParseException
from hydra.plugins.config_source import ConfigResult, ConfigSource
from hydra.plugins.search_path_plugin import SearchPathPlugin
from kedro.config import OmegaConfigLoader
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException
from pydantic import ValidationError

from mrt_pipeline.config import CLASSES, Parameters, class_defaults, class_names
from mrt_pipeline.errors import InputError
from mrt_pipeline.registry import flatten, import_plugins
from mrt_pipeline.rollouts.rollout import GONE

# What a pipeline runs with if nothing else is asked for; the tree's own defaults are those of mrt_rl.
PIPELINE_DEFAULTS = {"mrt_star": {"algorithm": "mrt_star", "training": "star"}}


class HydraConfigLoader(OmegaConfigLoader):
    """OmegaConfigLoader, but for `parameters`: composed by Hydra and validated against `config.Parameters`."""

    def __getitem__(self, key: str) -> dict[str, Any]:
        if key != "parameters":
            return super().__getitem__(key)
        base, own = (
            Path(self.conf_source).resolve() / (env or "") / "parameters"
            for env in (self.base_env, self.env or self.default_run_env)
        )
        return compose_parameters(base, self.runtime_params or {}, own if own != base else None)


def project_parameters(project: Path, given: dict[str, Any], env: str | None = None) -> Parameters:
    """The parameters of a run in a project, typed. Raises InputError in words."""
    loader = HydraConfigLoader(str(project / "conf"), env, given, base_env="base", default_run_env="local")
    return Parameters.model_validate(loader["parameters"])


def compose_parameters(folder: Path, overrides: dict[str, Any], own: Path | None = None) -> dict[str, Any]:
    """Compose and validate the parameter tree in `folder`; `own` may hold further group files.

    overrides: keys may be nested or dotted; strings are read as Hydra reads them.
    Raises InputError that names the key and the ones allowed.
    """
    flat = flatten(overrides)
    lists = {key: flat.pop(key) for key, value in [*flat.items()] if isinstance(value, list | tuple)}
    arguments = [f"{key}={value if isinstance(value, str) else json.dumps(value)}" for key, value in flat.items()]
    import_given_plugins(overrides)
    prepare_hydra(folder, own)
    outer, GlobalHydra.instance().hydra = GlobalHydra.instance().hydra, None  # a sweep calls this from inside Hydra
    try:
        with initialize_config_dir(str(folder), version_base="1.3"):
            config = compose("config", overrides=arguments)
        for key, value in lists.items():
            OmegaConf.update(config, key, value, merge=False)
        if missing := OmegaConf.missing_keys(config):
            raise InputError(f"there is no default for {', '.join(sorted(missing))}: give a value")
        tree = cast(dict[str, Any], OmegaConf.to_container(config, resolve=True))
    except (HydraException, OmegaConfBaseException) as error:
        raise InputError(explain_composition(error)) from error
    finally:
        GlobalHydra.instance().hydra = outer
    try:
        return Parameters.model_validate(tree).model_dump()
    except ValidationError as error:
        raise InputError(_explain_validation(error, tree)) from error


def import_given_plugins(overrides: dict[str, Any]) -> None:
    """Import the modules of `plugins=[...]`, so that the names they register can be chosen."""
    if "plugins" in overrides:
        given = overrides["plugins"]
        if isinstance(given, str):
            given = OverridesParser.create().parse_override(f"plugins={given}").value()
        import_plugins([str(module) for module in (given if isinstance(given, list | tuple) else [given]) if module])


def choices(project: Path) -> dict[str, list[str]]:
    """What can be chosen in each group of parameters that has more than one form: files, and names of classes."""
    found = {group: {*class_names(group)} for group in CLASSES}
    for file in sorted((project / "conf").glob("*/parameters/*/*.yaml")):
        found.setdefault(file.parent.name, set()).add(file.stem)
    return {group: sorted(names) for group, names in found.items() if len(names) > 1}


class _ClassDefaults(ConfigSource):
    """The defaults of classes, as if each were the file `<group>/<name>.yaml`.

    A file of the same name that says more starts from them as `/class/<group>@<group>: <name>`.
    """

    @staticmethod
    def scheme() -> str:
        return "class"

    def available(self) -> bool:
        return True

    def is_group(self, config_path: str) -> bool:
        return config_path.strip("/").removeprefix("class/") in {"", *CLASSES}

    def is_config(self, config_path: str) -> bool:
        group, name = _split(config_path)
        return group in CLASSES and name in class_names(group)

    def load_config(self, config_path: str) -> ConfigResult:
        config = OmegaConf.create(class_defaults(*_split(config_path)))
        return ConfigResult(self.provider, self.full_path(), config, {"package": None})

    def list(self, config_path: str, results_filter: ObjectType | None) -> list[str]:
        if results_filter is ObjectType.GROUP:
            return [] if config_path else sorted(CLASSES)
        return class_names(config_path) if config_path in CLASSES else []


def _split(config_path: str) -> tuple[str, str]:
    group, _, name = config_path.removesuffix(".yaml").removeprefix("class/").rpartition("/")
    return group, name


class _Sources(SearchPathPlugin):
    """Where parameters are looked for after `conf/base/parameters`: files of the user's own, then the classes."""

    own: ClassVar[Path | None] = None

    def manipulate_search_path(self, search_path: ConfigSearchPath) -> None:
        if self.own is not None:
            search_path.append("own", f"file://{self.own}")
        search_path.append("classes", "class://")


def prepare_hydra(folder: Path, own: Path | None) -> None:
    """Let Hydra find classes and the group files in `own`. Of the same name those in `folder` would win unnoticed."""
    for plugin in (_ClassDefaults, _Sources):  # again and again, since Hydra's launchers forget them in workers
        Plugins.instance().register(plugin)
    _Sources.own = own if own and own.is_dir() else None
    for file in own.rglob("*.yaml") if own else ():
        if own and (folder / file.relative_to(own)).exists():
            raise InputError(f"{file} has the name of a shipped file and would be ignored: give it another name")


def explain_composition(error: Exception) -> str:
    """What is wrong with a request, in words."""
    if isinstance(error, MissingConfigException) and error.options:
        return f"there is no {error.missing_cfg_file}; there are: {', '.join(error.options)}"
    if isinstance(error, OverrideParseException):
        return f"{error.override} cannot be read: {error.message.splitlines()[0]}"
    message = str(error).split("\nConfig search path")[0].split("\nTo append")[0]
    found = re.search(r"Could not override '([^']+)'|Key '.*' is not in struct\n *full_key: (.*)", message)
    if not found:
        return f"cannot compose the parameters: {message}"
    key = found.group(1) or found.group(2)
    if key in GONE:
        return f"'{key}' is no parameter any more: {GONE[key]}"
    node = getattr(error.__cause__ or error, "parent_node", None)
    known = sorted(str(name) for name in node if name != "hydra") if isinstance(node, DictConfig) else []
    return f"unknown parameter '{key}'" + (f"; allowed here: {', '.join(known)}" if known else "")


def _explain_validation(error: ValidationError, tree: dict[str, Any]) -> str:
    lines = ["the parameters do not fit:"]
    for item in error.errors():
        group, *rest = item["loc"] or ("parameters",)
        node = tree.get(str(group))
        for part in tuple(rest):
            if isinstance(node, dict) and part not in node and part == node.get("kind"):
                rest.remove(part)  # pydantic names the member of a union there, which is no key
            else:
                node = node.get(part) if isinstance(node, dict) else None
        key = ".".join(map(str, (group, *rest)))
        if item["type"] == "extra_forbidden":
            lines.append(f"  {key}: {GONE.get(key, 'unknown parameter')}")
        else:
            given = "" if isinstance(item["input"], dict) else f" (given: {item['input']!r})"
            lines.append(f"  {key}: {item['msg']}{given}")
    return "\n".join(lines)
