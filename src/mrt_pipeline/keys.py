"""Keys: what may be reused is named after everything that made it.

A key follows from the code that says what depends on what: of a call, from the values of its arguments; of a dataset,
from the node that makes it, the parameters that the node reads, and the keys of its inputs. Parameters that are marked
as incidental (`registry.INCIDENTAL`) count nowhere.
"""

import hashlib
import inspect
import json
from collections.abc import Callable, Iterable, Sequence
from functools import reduce, wraps
from types import SimpleNamespace
from typing import Any

import pandas as pd
from kedro.pipeline import Pipeline
from pydantic import BaseModel

from mrt_pipeline.policy.policy import SavedPolicy
from mrt_pipeline.registry import Params

# Raise when a change of the code changes what the same configuration produces.
CODE_VERSION = 4
_PARAMETER = "params:"


def configuration_key(**parts: Any) -> str:
    """Twelve hexadecimal digits that change with any value of any part that decides what is made.

    Parts are parameters, tables, policies, or plain values.
    """
    plain = {name: _plain(part) for name, part in parts.items()}
    text = json.dumps({"code_version": CODE_VERSION, **plain}, sort_keys=True)
    return hashlib.sha256(text.encode()).hexdigest()[:12]


def reads(**parts: Sequence[str]) -> Callable[[Callable], Callable]:
    """Says which attributes are all that a node's function reads of an argument: `reads(algorithm=["prefixes_every"])`.

    The function gets these attributes alone. None of them: the argument decides nothing, as it is only looked at, to
    refuse what does not fit, or handed on; the function gets the whole of it.
    """

    def mark(function: Callable) -> Callable:
        signature = inspect.signature(function)

        @wraps(function)
        def given_what_it_reads(*positional, **named):
            given = signature.bind(*positional, **named)
            for name, attributes in parts.items():
                if attributes:
                    whole = given.arguments[name]
                    given.arguments[name] = SimpleNamespace(**{part: getattr(whole, part) for part in attributes})
            return function(*given.args, **given.kwargs)

        given_what_it_reads.__dict__["__reads__"] = parts
        return given_what_it_reads

    return mark


def _read(function: Callable, name: str, value: Any) -> Any:
    """What decides of an argument."""
    parts = getattr(function, "__reads__", {})
    return [getattr(value, part) for part in parts[name]] if name in parts else value


def call_key(function: Callable, *arguments: Any) -> str:
    """The key of what a function returns for these arguments; see `reads`."""
    named = inspect.signature(function).bind(*arguments).arguments
    kept = {name: _read(function, name, value) for name, value in named.items()}
    return configuration_key(function=_name(function), **kept)


def _plain(value: Any) -> Any:
    if isinstance(value, Params):
        return value.deciding()
    if isinstance(value, SavedPolicy):
        return value.card.key
    if isinstance(value, pd.DataFrame):
        return hashlib.sha256(value.to_json(orient="split", double_precision=15).encode()).hexdigest()
    if isinstance(value, list | tuple):
        return [_plain(item) for item in value]
    return value


def _name(function: Callable) -> str:
    return f"{function.__module__}.{function.__qualname__}"


def dataset_keys(pipelines: Iterable[Pipeline], parameters: BaseModel) -> dict[str, str]:
    """The key of every dataset that the nodes of these pipelines make; where several make one, the last counts.

    parameters: the typed tree, which gives the values of `params:...`.
    """
    makers = {name: node for pipeline in pipelines for node in pipeline.nodes for name in node.outputs}
    keys: dict[str, str] = {}

    def decides(function: Callable, argument: str, name: str) -> Any:
        if not name.startswith(_PARAMETER):
            return key_of(name)
        path = name.removeprefix(_PARAMETER).split(".")
        return _read(function, argument, reduce(getattr, path, parameters))

    def key_of(name: str) -> str:
        if name not in makers:
            return name  # nothing here makes it
        if name not in keys:
            node, inputs = makers[name], []
            for argument, given in inspect.signature(node.func).bind(*node.inputs).arguments.items():
                several = given if isinstance(given, tuple) else (given,)  # of *arguments
                inputs.append([decides(node.func, argument, one) for one in several])
            keys[name] = configuration_key(function=_name(node.func), inputs=inputs, output=node.outputs.index(name))
        return keys[name]

    for made in makers:
        key_of(made)
    return keys
