"""What comparing needs of a finished run, small enough to be kept beside the code: means of problems, and the history.

A kept run is a folder of three files: `run.yaml` (its id, when it started, its commit, its parameters),
`trained.parquet` (a row for each mean of a problem) and `history.parquet` (what comparing uses of the table
`training_history`). The measures of its base are in the folder `bases` beside it, once for all runs on that base.
"""

import hashlib
import json
import logging
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import pandas as pd
import yaml

from mrt_pipeline.errors import InputError
from mrt_pipeline.evaluation.evaluate import budgets_of, measure, problem_means
from mrt_pipeline.evaluation.intervals import BASE
from mrt_pipeline.evaluation.regret_sources import regret_sources, source_values
from mrt_pipeline.evaluation.voting import majority_by_problem, shown_episodes, trace_regrets

logger = logging.getLogger(__name__)
_PARTS = ("values", "thinking_tokens", "votes", "sources", "stopping")
_DESCRIPTION, _TRAINED, _HISTORY, _BASES = "run.yaml", "trained.parquet", "history.parquet", "bases"
_DIGITS = 3  # of a kept number: a mean over problems changes by some .00001, and the files are a third
_KEPT = ("step", "train/sampled_tokens", "train/prover_tokens", "train/reward", "train/thinking_tokens", "validation/")

Measures = Mapping[str, Mapping[tuple, pd.Series]]
"""The parts `values` (regret and accuracy), `thinking_tokens`, `votes`, `sources` and `stopping`; in each the mean of
every problem, by what was measured, as in `Arm`."""


class TrainingRun(Protocol):
    """A finished run as `compare` sees it: in MLflow (tracking/read_runs.py), or kept in a folder."""

    run_id: str
    started: int  # in milliseconds since 1970
    commit: str
    parameters: Mapping[str, Any]

    def measures(self, policy: str) -> Measures:
        """Of `base` or `trained`; read when they are first asked for."""

    @property
    def history(self) -> pd.DataFrame:
        """The table `training_history`."""


def measure_tables(
    tables: Mapping[str, pd.DataFrame], parameters: Mapping[str, Any], policy: str, run_id: str
) -> Measures:
    """The measures of a policy, from the tables of a run by dataset name.

    Without a table of votes there is no stopping regret, and a line says so.
    """
    budget = parameters["rollout"]["thinking_budget"]
    budgets = budgets_of(budget, parameters["evaluation"]["budget_multiples"])
    episodes, rollouts = tables[f"{policy}_episodes"], tables[f"{policy}_rollouts"]
    length, problems = rollouts["natural_length"], rollouts["problem_id"]
    return {
        "values": measure(episodes, tables[f"{policy}_anytime"], budgets),
        "thinking_tokens": {(b,): problem_means(length.clip(upper=b), problems) for b in budgets},
        "votes": majority_by_problem(tables[f"{policy}_samples"]),
        "sources": source_values(regret_sources(episodes, tables[f"{BASE}_samples"], budget)),
        "stopping": _stopping(tables.get(f"{policy}_votes"), f"{policy}_votes", run_id),
    }


def _stopping(votes: pd.DataFrame | None, table: str, run_id: str) -> dict[tuple, pd.Series]:
    if votes is None:
        logger.warning("Run %s has no table '%s': its arm is compared without stopping regret", run_id, table)
        return {}
    regrets = trace_regrets(votes, shown_episodes(votes))
    return {(b,): values.groupby(level=0).mean() for b, values in regrets.items()}


@dataclass
class KeptRun:
    """A kept run: a `TrainingRun` whose measures are read from its folder."""

    folder: Path
    run_id: str
    started: int
    commit: str
    base: str
    parameters: Mapping[str, Any]

    def measures(self, policy: str) -> Measures:
        """See `TrainingRun`; InputError if the file cannot be read."""
        table = self._read(f"../{_BASES}/{self.base}.parquet" if policy == BASE else _TRAINED)
        found: dict[str, dict[tuple, pd.Series]] = {part: {} for part in _PARTS}
        for (part, key), rows in table.groupby(["part", "key"], observed=True, sort=False):
            values = pd.Series(rows["value"].to_numpy(np.float64), index=rows["problem_id"].astype(str).tolist())
            found[part][tuple(json.loads(key))] = values
        return found

    @property
    def history(self) -> pd.DataFrame:
        """See `TrainingRun`; InputError if the file cannot be read."""
        return self._read(_HISTORY)

    def _read(self, name: str) -> pd.DataFrame:
        try:
            return pd.read_parquet(self.folder / name)
        except (OSError, ValueError) as error:
            raise InputError(f"the kept run in {self.folder} cannot be read: {error}") from error


def keep(run: TrainingRun, folder: Path) -> Path:
    """Write a run into a folder of its own under `folder`, and say where."""
    parameters, history = run.parameters, run.history
    own = folder / f"{parameters['algorithm']['name']}-{parameters['seed']}-{run.run_id[:8]}"
    for place in (own, folder / _BASES):
        place.mkdir(parents=True, exist_ok=True)
    base = _table(run.measures(BASE))
    digest = hashlib.sha256(base.to_csv(index=False).encode()).hexdigest()[:12]
    _write(base, folder / _BASES / f"{digest}.parquet")
    _write(_table(run.measures("trained")), own / _TRAINED)
    _write(history[[name for name in history.columns if name.startswith(_KEPT)]], own / _HISTORY)
    described = {"run_id": run.run_id, "started": run.started, "commit": run.commit, "base": digest}
    text = yaml.safe_dump(described | {"parameters": dict(parameters)}, indent=2, sort_keys=False)
    (own / _DESCRIPTION).write_text(text)
    return own


def _table(measures: Measures) -> pd.DataFrame:
    rows = [
        pd.DataFrame({"part": part, "key": json.dumps(key), "problem_id": values.index, "value": values})
        for part, by_key in measures.items()
        for key, values in by_key.items()
    ]
    table = pd.concat(rows, ignore_index=True)
    return table.assign(value=table["value"].astype(np.float64).round(_DIGITS))


def _write(table: pd.DataFrame, path: Path) -> None:
    texts = table.select_dtypes(exclude="number").columns
    table.astype(dict.fromkeys(texts, "category")).to_parquet(path, compression="zstd", index=False)


def kept_runs(folder: Path) -> list[KeptRun]:
    """All kept runs under a folder, by name. InputError for one whose description cannot be read."""
    found = []
    for path in sorted(folder.rglob(_DESCRIPTION)):
        try:
            found.append(KeptRun(folder=path.parent, **yaml.safe_load(path.read_text())))
        except (TypeError, yaml.YAMLError) as error:
            raise InputError(f"{path} does not describe a kept run: {error}") from error
    return found
