"""The reference of every parameter, from the typed models and the shipped values.

`python -m mrt_pipeline.reference > docs/parameters.md`
"""

import inspect
from pathlib import Path
from types import UnionType
from typing import Annotated, Any, Literal, Union, get_args, get_origin

from pydantic import BaseModel, RootModel
from pydantic.fields import FieldInfo

from mrt_pipeline.config import Parameters
from mrt_pipeline.config_loader import compose_parameters

_INTRODUCTION = """# Parameters

Made by `python -m mrt_pipeline.reference > docs/parameters.md` from `src/mrt_pipeline/config.py`. A key is given as
`--params "key=value"`; a group's name chooses a file in `conf/base/parameters/<group>/`. The default is that of the
shipped configuration, with nothing chosen.
"""


def parameter_reference(folder: Path) -> str:
    """Markdown: a section for each group and each of its forms, a row for each key. folder: the parameter tree."""
    defaults = compose_parameters(folder.resolve(), {})
    sections, plain = [], []
    for name, field in Parameters.model_fields.items():
        forms = _models(field.annotation)
        if not forms:
            plain.append(_row(name, field, defaults[name]))
        for form in forms:
            sections += _section(form, name, defaults[name])
    return "\n".join([_INTRODUCTION, "## At the top", "", *_HEAD, *plain, *sections]) + "\n"


_HEAD = ("| key | type | default | meaning |", "| --- | --- | --- | --- |")


def _section(model: type[BaseModel], path: str, default: Any) -> list[str]:
    tag = next((f for n, f in model.model_fields.items() if n in ("name", "kind")), None)
    chosen = get_args(tag.annotation)[0] if tag is not None and get_origin(tag.annotation) is Literal else None
    mine = isinstance(default, dict) and (chosen is None or chosen in (default.get("name"), default.get("kind")))
    title = f"## {path}" + (f"={chosen}" if chosen else "")
    rows, deeper = [], []
    for name, field in model.model_fields.items():
        value = default.get(name) if mine else None
        forms = _models(field.annotation)
        for form in forms:
            deeper += _section(form, f"{path}.{name}", value)
        if not forms and not (name in ("name", "kind") and chosen):
            rows.append(_row(f"{path}.{name}", field, value, known=mine))
    about = inspect.getdoc(model) if model.__doc__ and not model.__name__.startswith("_") else ""
    return ["", title, "", *([about, ""] if about else []), *_HEAD, *rows, *deeper]


def _row(path: str, field: FieldInfo, value: Any, known: bool = True) -> str:
    shown = "" if not known else "null" if value is None else f"`{value}`"
    cells = [f"`{path}`", _type(field.annotation), shown, field.description or ""]
    return "| " + " | ".join(cell.replace("|", "\\|").replace("\n", "\\n") for cell in cells) + " |"


def _models(annotation: Any) -> list[type[BaseModel]]:
    """The models that a value may be of; lists of models count as values."""
    if isinstance(annotation, type) and issubclass(annotation, RootModel):
        return _models(annotation.model_fields["root"].annotation)
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
    if origin is not None:
        inner = ", ".join(_type(part) for part in get_args(annotation))
        return f"{origin.__name__} of {inner}"
    return getattr(annotation, "__name__", str(annotation))


if __name__ == "__main__":
    print(parameter_reference(Path("conf/base/parameters")), end="")
