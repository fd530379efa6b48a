"""Parameters beside the class they configure, and names by which such classes are found.

A family (algorithms, tasks, provers, engines, policies) is a subclass of `Registered`; a member is a subclass of the
family with `name: Literal["<name>"] = "<name>"`, whose fields are its parameters. To define it is to register it, so
the modules that define members have to be imported: those of this package are named in `builtin`, other packages name
theirs as entry points (`mrt_pipeline.algorithm`, `mrt_pipeline.task`, ...), and a single file of one's own is given as
`plugins=[my_module]`. Wherever a value of the family is expected, a dictionary with a name becomes the member of that
name; a name that nobody has registered is refused with those that are known.
"""

import hashlib
import importlib
import sys
from collections.abc import Callable, Mapping
from functools import partial
from importlib.metadata import EntryPoints, entry_points
from importlib.util import find_spec
from pathlib import Path
from typing import Annotated, Any, ClassVar, Self, cast

from pydantic import BaseModel, ConfigDict, Field, model_validator
from pydantic.config import JsonDict

from mrt_pipeline.errors import InputError

Fraction = Annotated[float, Field(ge=0, le=1)]
PositiveInt = Annotated[int, Field(gt=0)]
PositiveFloat = Annotated[float, Field(gt=0)]
NonNegative = Annotated[float, Field(ge=0)]

INCIDENTAL: JsonDict = {"incidental": True}
"""`json_schema_extra` of a parameter that changes nothing in what is made: what is shown, where there is room."""


def taken_from(key: str) -> JsonDict:
    """`json_schema_extra` of a parameter whose default is the value of another one, as "rollout.thinking_budget"."""
    return {"from": key}


class Params(BaseModel):
    """Typed parameters: unknown keys are refused, values do not change."""

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)

    def deciding(self) -> dict[str, Any]:
        """The values that decide what is made, as plain ones; nested parameters likewise."""
        return {
            name: _deciding(getattr(self, name))
            for name, field in type(self).model_fields.items()
            if not (isinstance(field.json_schema_extra, dict) and field.json_schema_extra.get("incidental"))
        }


def _deciding(value: Any) -> Any:
    if isinstance(value, Params):
        return value.deciding()
    if isinstance(value, list | tuple):
        return [_deciding(item) for item in value]
    if isinstance(value, dict):
        return {str(key): _deciding(item) for key, item in value.items()}
    return value if value is None or isinstance(value, str | int | float) else str(value)


def flatten(tree: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """Nested keys joined by dots: {"a": {"b": 1}} becomes {"a.b": 1}."""
    flat: dict[str, Any] = {}
    for key, value in tree.items():
        flat |= flatten(value, f"{prefix}{key}.") if isinstance(value, dict) else {f"{prefix}{key}": value}
    return flat


def code_of(module: str) -> str:
    """A digest of a module's file, so that what it made is not taken for what it would make after a change."""
    try:
        found = find_spec(module)
    except (ImportError, ValueError):
        found = None
    return content_of(Path(found.origin)) or module if found and found.origin else module


def content_of(file: Path) -> str:
    """A digest of what is in a file; empty if there is none."""
    return hashlib.sha256(file.read_bytes()).hexdigest()[:12] if file.is_file() else ""


class Registered(Params):
    """Base of a family; see the module's docstring.

    kind: what the family is called in messages, configuration and entry points. builtin: the module of each member
    that this package has.
    """

    name: str
    kind: ClassVar[str] = ""
    builtin: ClassVar[dict[str, str]] = {}
    _members: ClassVar[dict[str, type["Registered"]]] = {}
    _family: ClassVar[type["Registered"]]

    @classmethod
    def __pydantic_init_subclass__(cls, **kwargs: Any) -> None:
        super().__pydantic_init_subclass__(**kwargs)
        if Registered in cls.__bases__:
            cls._family, cls._members = cls, {}
            return
        name = cls.model_fields["name"].default
        if not isinstance(name, str):
            return  # a common base of several members
        before = cls._members.get(name)
        taken = before is not None and (before.__module__, before.__qualname__) != (cls.__module__, cls.__qualname__)
        if taken or cls.builtin.get(name, cls.__module__) != cls.__module__:
            raise InputError(f"{cls.__module__} defines a {cls.kind} '{name}', but there is one: choose another name")
        cls._members[name] = cls

    @classmethod
    def member(cls, name: str) -> type[Self]:
        """The class of that name. Raises InputError that lists the known ones."""
        family = cls._family
        if name not in family._members:
            if name in family.builtin:
                importlib.import_module(family.builtin[name])
            for entry in family._others().select(name=name):
                _load(entry.load, f"the {family.kind} '{name}' cannot be loaded")
        if name not in family._members:
            raise InputError(f"unknown {family.kind} '{name}'; known are {', '.join(cls.names())}")
        return cast(type[Self], family._members[name])

    @classmethod
    def names(cls) -> list[str]:
        """All names that `member` knows, sorted."""
        family = cls._family
        return sorted({*family._members, *family.builtin, *(entry.name for entry in family._others())})

    @classmethod
    def _others(cls) -> EntryPoints:
        """The entry points of members that other packages have."""
        return entry_points(group=f"mrt_pipeline.{cls.kind}")

    def deciding(self) -> dict[str, Any]:
        """See `Params.deciding`; of a class that this package does not have, its file as well."""
        if self.name in self.builtin:
            return super().deciding()
        return {**super().deciding(), "code": code_of(type(self).__module__)}

    @model_validator(mode="wrap")
    @classmethod
    def _by_name(cls, value: Any, handler) -> Self:
        if cls is not cls._family or not isinstance(value, dict):
            return handler(value)
        if "name" not in value:
            raise ValueError(f"the {cls.kind} has no name; known are {', '.join(cls.names())}")
        return cls.member(str(value["name"])).model_validate(value)

    def check(self, tree: Any) -> None:
        """Raise ValueError if these parameters do not fit the others. tree: the whole `config.Parameters`."""


def import_plugins(modules: list[str]) -> None:
    """Import modules that register members; those of the working directory are found, too."""
    here = str(Path.cwd())
    if modules and here not in sys.path:
        sys.path.append(here)
    for module in modules:
        _load(partial(importlib.import_module, module), f"the plugin '{module}' cannot be imported")


def _load(load: Callable[[], Any], otherwise: str) -> None:
    try:
        load()
    except Exception as error:  # whatever is wrong with it: it is another's code
        raise InputError(f"{otherwise}: {type(error).__name__}: {error}") from error
