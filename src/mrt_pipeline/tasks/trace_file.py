"""Traces to warm-start on from a file: question, thought and answer of each, as text."""

from pathlib import Path

import numpy as np

from mrt_pipeline.errors import InputError
from mrt_pipeline.tasks.base import Problem, SearchTrace
from mrt_pipeline.tasks.files import read_file

_COLUMNS = ("question", "thought", "answer")


class GivenTraces:
    """What a file (.jsonl, .json, .parquet, .csv) has, in place of a task that writes traces.

    A row is a trace; `thought` is what stands between the opening and the closing marker, `answer` what is written
    after it, as the model is to write it. Several rows may share a question.
    problems: its questions, once each.
    """

    def __init__(self, path: str):
        table = read_file(Path(path), "policy.warm_start.traces")
        if missing := [name for name in _COLUMNS if name not in table.columns]:
            raise InputError(
                f"{path} has no column '{missing[0]}'; it has {', '.join(map(str, table.columns))}: traces to "
                f"warm-start on need {', '.join(_COLUMNS)}"
            )
        whole = table[[*_COLUMNS]].dropna().astype(str)
        whole = whole[(whole["question"] != "") & (whole["thought"] != "")]
        if whole.empty:
            raise InputError(f"{path} has no trace with a question and a thought in it")
        self.traces = {
            question: [SearchTrace(thought, answer, cut=False) for thought, answer in rows.itertuples(index=False)]
            for question, rows in whole.groupby("question", sort=False)[["thought", "answer"]]
        }
        self.problems = [Problem(f"trace-{i}", Path(path).stem, "train", q, ()) for i, q in enumerate(self.traces)]

    def search_trace(self, problem: Problem, rng: np.random.Generator) -> SearchTrace:
        """One of the traces of this question."""
        there = self.traces[problem.question]
        return there[rng.integers(len(there))]
