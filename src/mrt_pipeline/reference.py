"""The reference of every parameter, from the typed models and the shipped values.

`python -m mrt_pipeline.reference > docs/parameters.md`
"""

import inspect
from pathlib import Path
from textwrap import fill
from types import UnionType
from typing import Annotated, Any, Literal, Union, get_args, get_origin

from pydantic import BaseModel
from pydantic.fields import FieldInfo

from mrt_pipeline.config import Parameters, defaults_of
from mrt_pipeline.config_loader import compose_parameters
from mrt_pipeline.registry import Registered

_INTRODUCTION = """# Parameters

Made by `python -m mrt_pipeline.reference > docs/parameters.md` from the classes that the keys configure. A key is given
as `--params "key=value"`; a group's name chooses one of its forms, a class or a file in
`conf/base/parameters/<group>/`. The default is that of the shipped configuration with nothing chosen, and for a form
that is not chosen there the one of its class.
"""
_HEAD = ("| key | type | default | meaning |", "| --- | --- | --- | --- |")


def parameter_reference(folder: Path) -> str:
    """Markdown: a section for each group and each of its forms, a row for each key. folder: the parameter tree."""
    rows, sections = _rows(Parameters, "", compose_parameters(folder.resolve(), {}))
    return "\n".join([_INTRODUCTION, "## At the top", "", *_HEAD, *rows, *sections]) + "\n"


def _rows(model: type[BaseModel], path: str, values: dict[str, Any]) -> tuple[list[str], list[str]]:
    """A row for each key, and the sections of the keys that hold models."""
    rows, sections = [], []
    for name, field in model.model_fields.items():
        forms = _models(field.annotation)
        for form in forms:
            sections += _section(form, f"{path}{name}", values.get(name))
        if not forms and name != _tag(model):
            rows.append(_row(f"{path}{name}", field, values[name]))
    return rows, sections


def _section(model: type[BaseModel], path: str, given: Any) -> list[str]:
    tag = _tag(model)
    chosen = model.model_fields[tag].default if tag else None
    mine = isinstance(given, dict) and (tag is None or given[tag] == chosen)
    rows, deeper = _rows(model, f"{path}.", given if mine else defaults_of(model))
    about = _about(model)
    title = f"## {path}={chosen}" if tag else f"## {path}"
    return ["", title, "", *([about, ""] if about else []), *_HEAD, *rows, *deeper]


def _tag(model: type[BaseModel]) -> str | None:
    """The key that says which form it is, if there are several."""
    fields = model.model_fields
    return next((key for key in ("name", "kind") if key in fields and isinstance(fields[key].default, str)), None)


def _about(model: type[BaseModel]) -> str:
    """The first paragraph of a class's docstring, or of its module's where it says no more than that."""
    first = (inspect.getdoc(model) or "").split("\n\n")[0]
    if first.startswith(("See the module", "The task")):
        module = (inspect.getdoc(inspect.getmodule(model)) or "").split("\n\n")[0]
        first = f"{module} See {'/'.join(model.__module__.split('.')[1:])}.py."
    return fill(first, 120)


def _row(path: str, field: FieldInfo, value: Any) -> str:
    shown = "" if value == "???" else "null" if value is None else f"`{value}`"
    cells = [f"`{path}`", _type(field.annotation), shown, field.description or ""]
    return "| " + " | ".join(cell.replace("|", "\\|").replace("\n", "\\n") for cell in cells) + " |"


def _models(annotation: Any) -> list[type[BaseModel]]:
    """The models that a value may be of, of a family all that ship; lists of models count as values."""
    if isinstance(annotation, type) and issubclass(annotation, Registered):
        return [annotation.member(name) for name in annotation.builtin]
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return [annotation]
    if get_origin(annotation) in (Union, UnionType, Annotated):
        return [model for part in get_args(annotation) for model in _models(part)]
    return []


def _type(annotation: Any) -> str:
    origin = get_origin(annotation)
    if origin is Literal:
        return ", ".join(map(str, get_args(annotation)))
    if origin is Annotated:
        return _type(get_args(annotation)[0])
    if origin in (Union, UnionType):
        return " or ".join(_type(part) for part in get_args(annotation))
    if annotation is type(None):
        return "null"
    if origin is tuple:
        return f"list of {_type(get_args(annotation)[0])}"
    if origin is not None:
        inner = ", ".join(_type(part) for part in get_args(annotation))
        return f"{origin.__name__} of {inner}"
    return getattr(annotation, "__name__", str(annotation))


if __name__ == "__main__":
    print(parameter_reference(Path("conf/base/parameters")), end="")
