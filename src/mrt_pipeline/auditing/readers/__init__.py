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

from mrt_pipeline.auditing.readers import lm_eval, records, responses, trl
from mrt_pipeline.auditing.trace import MAX_CHARS, Trace
from mrt_pipeline.errors import InputError
from mrt_pipeline.tasks.files import READERS, read_file, read_hub

FORMATS: dict[str, ModuleType] = {"responses": responses, "lm_eval": lm_eval, "trl": trl, "records": records}
"""By name, in the order in which they are tried."""
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
        files = sorted(file for ending in READERS for file in place.rglob(f"*{ending}"))
        if not files:
            raise InputError(f"the folder {path} has no file that ends in {', '.join(READERS)}")
        for file in files:
            yield from _of_file(file, refused)
    elif place.suffix in READERS:
        if not place.is_file():
            raise InputError(f"there is no file {path}: correct audit.traces")
        yield from _of_file(place, refused)
    else:
        for number, row in enumerate(read_hub(path, "train", "a file or a folder of files"), start=1):
            yield f"{path}, row {number}", row


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
    if file.suffix == ".json":
        try:
            found = json.loads(file.read_text(encoding="utf-8", errors="replace"))
        except (ValueError, RecursionError) as error:
            raise InputError(f"cannot read {file} as json: {error}") from error
        rows: Sequence[Any] = found if isinstance(found, list) else [found]
    else:
        rows = read_file(file, "audit.traces").to_dict("records")
    for number, row in enumerate(rows, start=1):
        yield f"{file.name}, row {number}", row
