"""Traces from files and datasets, one small reader a format.

A format is a module with two functions: `recognises(record)`, whether a record is of it, and `traces(record, columns)`,
the traces that it holds; a record that lacks something raises ValueError that says what. The first record that any
format recognises decides for all of the source, unless `form` names one.
"""

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from types import ModuleType
from typing import Any

import pandas as pd

from mrt_pipeline.auditing.readers import lm_eval, records, responses, trl
from mrt_pipeline.auditing.trace import MAX_CHARS, Trace
from mrt_pipeline.errors import InputError

FORMATS: dict[str, ModuleType] = {"responses": responses, "lm_eval": lm_eval, "trl": trl, "records": records}
"""By name, in the order in which they are tried."""
_ENDINGS = (".jsonl", ".json", ".parquet", ".csv")
_LISTED = 5  # records that a message names


@dataclass
class Found:
    """What a source holds. refused: a line for each record that could not be read; the others were."""

    traces: list[Trace] = field(default_factory=list)
    refused: list[str] = field(default_factory=list)


def read_traces(path: str, form: str = "auto", columns: Mapping[str, str] | None = None) -> Found:
    """The traces in a file, in the files of a folder, or in a dataset on the hub.

    Where some thoughts of a source end with `</think>`, those without any marker were cut; where none does, all end.

    form: the name of a format; auto: found from the first records. columns: of `records`, for what is not called as
    usual, as {"gold": "solution"}. Raises InputError if there are no traces to be had at all.
    """
    if form not in ("auto", *FORMATS):
        raise InputError(f"unknown format '{form}'; known are auto, {', '.join(FORMATS)}")
    if wrong := sorted({*(columns or {})} - {*records.COLUMNS}):
        raise InputError(f"audit.columns names '{wrong[0]}'; it can name {', '.join(records.COLUMNS)}")
    found, reader = Found(), FORMATS.get(form)
    for place, record in _records(path, found.refused):
        reader = reader or next((each for each in FORMATS.values() if each.recognises(record)), None)
        if reader is None:
            known = ", ".join(map(str, record)) if isinstance(record, Mapping) else type(record).__name__
            found.refused.append(f"{place}: no format has these columns: {known}")
            continue
        try:
            read = list(reader.traces(record, columns or {}))
            for trace in read:
                _check(trace)
        except (ValueError, TypeError, KeyError, IndexError, AttributeError) as error:
            found.refused.append(f"{place}: {_reason(error)}")
        else:
            found.traces += read
    if not found.traces:
        why = "; ".join(found.refused[:_LISTED]) or "it is empty"
        raise InputError(
            f"there are no traces in {path}: {why}. A trace is a question, a thought and an answer; name the columns "
            "as in audit.columns={thought: reasoning}, or the format by audit.form"
        )
    marked = any(trace.finished is not None for trace in found.traces)
    found.traces = [t if t.finished is not None else replace(t, finished=not marked) for t in found.traces]
    return found


def _check(trace: Trace) -> None:
    if not trace.question.strip():
        raise ValueError("the question is empty")
    if not trace.thought.strip() and not trace.answer.strip():
        raise ValueError("neither a thought nor an answer")
    if len(trace.thought) > MAX_CHARS or len(trace.answer) > MAX_CHARS:
        raise ValueError(f"a text of more than {MAX_CHARS} characters")


def _reason(error: Exception) -> str:
    if isinstance(error, KeyError):
        return f"it has no {error}"
    return (str(error) or type(error).__name__).splitlines()[0]


def _records(path: str, refused: list[str]) -> Iterator[tuple[str, Any]]:
    """Each record with its place in words; lines that are no JSON are refused one by one."""
    place = Path(path).expanduser()
    if place.is_dir():
        files = sorted(file for ending in _ENDINGS for file in place.rglob(f"*{ending}"))
        if not files:
            raise InputError(f"the folder {path} has no file that ends in {', '.join(_ENDINGS)}")
        for file in files:
            yield from _of_file(file, refused)
    elif place.suffix in _ENDINGS:
        if not place.is_file():
            raise InputError(f"there is no file {path}: correct audit.traces")
        yield from _of_file(place, refused)
    else:
        yield from _of_hub(path)


def _of_file(file: Path, refused: list[str]) -> Iterator[tuple[str, Any]]:
    if file.suffix == ".jsonl":
        with file.open(encoding="utf-8", errors="replace") as lines:
            for number, line in enumerate(lines, start=1):
                if line.strip():
                    try:
                        yield f"{file.name}, line {number}", json.loads(line)
                    except (ValueError, RecursionError) as error:
                        refused.append(f"{file.name}, line {number}: no JSON ({error})")
        return
    try:
        if file.suffix == ".json":
            found = json.loads(file.read_text(encoding="utf-8", errors="replace"))
            rows: Sequence[Any] = found if isinstance(found, list) else [found]
        elif file.suffix == ".csv":
            rows = pd.read_csv(file, dtype=str, keep_default_na=False).to_dict("records")
        else:
            rows = pd.read_parquet(file).to_dict("records")
    except Exception as error:  # each library has errors of its own
        raise InputError(f"cannot read {file} as {file.suffix[1:]}: {error}") from error
    for number, row in enumerate(rows, start=1):
        yield f"{file.name}, row {number}", row


def _of_hub(name: str) -> Iterator[tuple[str, Any]]:
    from datasets import load_dataset

    try:
        rows = load_dataset(name, split="train")
    except Exception as error:  # no connection, no such dataset: all come as different errors
        raise InputError(
            f"'{name}' is not a file ({', '.join(_ENDINGS)}) or a folder, and as a dataset on the hub it cannot be "
            f"loaded: {(str(error) or type(error).__name__).splitlines()[0]}"
        ) from error
    for number, row in enumerate(rows, start=1):
        yield f"{name}, row {number}", row
