"""Schemas of the tables that the pipeline's nodes exchange and write; see docs/tables.md.

A column is of the same kind wherever it stands, but for the few exceptions that a table names.
"""

from typing import Any

import pandas as pd
from pandera.pandas import Check, Column, DataFrameSchema

from mrt_pipeline.evaluation.diagnosis import QUANTITIES as DIAGNOSED
from mrt_pipeline.evaluation.regret_sources import DIFFICULTIES, QUANTITIES, SOURCES
from mrt_pipeline.tasks.base import Grade

Kind = dict[str, Any]  # the arguments of a column

_TEXT, _FLAG, _LIST, _NUMBER = ({"dtype": dtype} for dtype in (str, bool, object, float))
_COUNT, _POSITIVE = ({"dtype": int, "checks": check} for check in (Check.ge(0), Check.gt(0)))
_AMOUNT, _SPENT = ({"dtype": float, "checks": check} for check in (Check.ge(0), Check.gt(0)))
_SHARE, _CHANGE = ({"dtype": float, "checks": Check.in_range(low, 1)} for low in (0, -1))


def _one_of(values: Any) -> Kind:
    return {"dtype": str, "checks": Check.isin(values)}


def _or_none(kind: Kind) -> Kind:
    return {**kind, "nullable": True}


_KINDS: dict[str, Kind] = {
    name: kind
    for names, kind in (
        ("policy problem_id source question metadata text answer_text prover definition", _TEXT),
        ("arm against baseline credit", _TEXT),
        ("forced stopped linearised excludes_zero", _FLAG),
        ("answers rewards answer_tokens cuts cut_success boundaries prompt_token_ids thought_token_ids", _LIST),
        ("thought_choice_ids thought_logprobs natural_close_token_ids close_token_ids", _LIST),
        ("answer_token_ids answer_logprobs", _LIST),
        ("rollout_id group n_tokens natural_length stream_length dropped_tokens min_thinking prover_tokens", _COUNT),
        ("episodes_later n", _COUNT),
        ("budget episodes k baseline_k p n_seeds n_bases n_problems n_traces", _POSITIVE),
        ("reward success regret accuracy level", _SHARE),
        (" ".join(SOURCES), _SHARE),
        ("success_sem thinking_tokens ratio", _AMOUNT),
        ("tokens sampled_tokens", _SPENT),
        ("stopped_at found_at tokens_after sem", _or_none(_AMOUNT)),
        ("stopped_reward", _or_none(_SHARE)),
        ("progress", _or_none(_CHANGE)),
        ("ci_low ci_high difference difference_low difference_high", _or_none(_NUMBER)),
        ("seed", {"dtype": int}),
        ("episode", {"dtype": int, "checks": Check.ge(-1)}),
        ("close_logprob", {"dtype": float, "checks": Check.le(0)}),
        ("split", _one_of(["train", "validation", "test"])),
        ("grade", _one_of([grade.value for grade in Grade])),
        ("stop_reason", _one_of(["stop", "length", "eos"])),
        ("method", _one_of(["vote", "direct"])),
        ("quantity", _one_of(["regret", "accuracy"])),
    )
    for name in names.split()
}


def _schema(key: str, columns: str, **exceptions: Kind) -> DataFrameSchema:
    """key: the columns that tell rows apart. columns: the others. exceptions: columns of another kind than usual."""
    kinds = {name: exceptions.get(name) or _KINDS[name] for name in [*key.split(), *columns.split(), *exceptions]}
    return DataFrameSchema({name: Column(**kind) for name, kind in kinds.items()}, unique=key.split(), strict=True)


_TRACE = "policy problem_id rollout_id"
_BOUNDS = "ci_low ci_high"
_DIFFERENCE = "difference difference_low difference_high"
_SURE = {"ci_low": _NUMBER, "ci_high": _NUMBER}  # where an interval is always there
_BY_BUDGET = {**_SURE, "difference": _or_none(_CHANGE)}
_SUMMARY = {"difficulty": _one_of([*DIFFICULTIES, "all"]), "quantity": _one_of(QUANTITIES), "mean": _or_none(_AMOUNT)}

PROBLEMS = _schema("problem_id", "source split question answers metadata")
ROLLOUTS = _schema(
    _TRACE,
    "group prompt_token_ids thought_token_ids thought_choice_ids thought_logprobs boundaries natural_close_token_ids "
    "close_token_ids close_logprob answer_token_ids answer_logprobs text answer_text reward grade stop_reason "
    "natural_length stream_length dropped_tokens min_thinking stopped_at stopped_reward seed",
)
EPISODES = _schema(f"{_TRACE} episode stopped", "n_tokens success success_sem progress forced prover")
LABELS = _schema(_TRACE, "cuts cut_success prover_tokens")
ANYTIME = _schema(f"{_TRACE} n_tokens forced", "success")
VOTES = _schema(f"{_TRACE} episode", "n_tokens answers rewards answer_tokens")
REGRET = _schema("policy budget forced definition", f"regret {_DIFFERENCE}", **_BY_BUDGET)
ACCURACY = _schema("policy budget forced", f"accuracy {_DIFFERENCE}", **_BY_BUDGET, thinking_tokens=_NUMBER)
REGRET_SOURCES = _schema(
    _TRACE, f"budget regret {' '.join(SOURCES)} found_at tokens_after thinking_tokens", difficulty=_one_of(DIFFICULTIES)
)
REGRET_SOURCES_SUMMARY = _schema(
    "policy difficulty quantity", f"budget {_BOUNDS} {_DIFFERENCE}", **_SUMMARY, n_problems=_COUNT
)
STOP_AND_VOTE = _schema(
    "policy method episode p", f"accuracy {_BOUNDS} {_DIFFERENCE}", episode=_COUNT, n_tokens=_AMOUNT
)
STOPPING_REGRET = _schema("policy episodes", f"regret {_BOUNDS} {_DIFFERENCE} n_traces")
MAJORITY = _schema("policy linearised k", "accuracy tokens", **_SURE)

DIAGNOSIS = _schema("quantity credit episodes_later", "sem n", quantity=_one_of(DIAGNOSED), mean=_or_none(_NUMBER))

AUDIT_PROBLEMS = _schema(
    "problem",
    "question n_traces",
    problem=_COUNT,
    gold=_TEXT,
    length=_AMOUNT,
    settled_share=_or_none(_SHARE),
    accuracy=_or_none(_SHARE),
    regret=_or_none(_SHARE),
    cause=_one_of([*SOURCES, ""]),
    tokens_after=_or_none(_AMOUNT),
)
AUDIT_CURVE = _schema("budget", f"accuracy {_BOUNDS} regret", regret_low=_NUMBER, regret_high=_NUMBER, spent=_AMOUNT)

COMPARISON = _schema("arm quantity budget forced", f"{_BOUNDS} thinking_tokens n_seeds n_bases n_problems", mean=_SHARE)
COMPARISON_DIFFERENCES = _schema("arm against quantity budget forced", f"{_BOUNDS} excludes_zero", difference=_CHANGE)
COMPARISON_GAINS = _schema("arm quantity budget forced", f"{_BOUNDS} baseline", ratio=_or_none(_NUMBER))
COMPARISON_EFFICIENCY = _schema(
    "arm",
    f"baseline level ratio {_BOUNDS} sampled_tokens",
    prover_tokens=_AMOUNT,
    **dict.fromkeys(("tokens_to_level", "baseline_tokens"), _SPENT),
    **dict.fromkeys(("prover_ratio", "prover_ratio_low", "prover_ratio_high"), _NUMBER),
)
COMPARISON_SOURCES = _schema(
    "arm difficulty quantity", f"budget {_BOUNDS} {_DIFFERENCE} baseline n_seeds", **_SUMMARY, n_problems=_COUNT
)
COMPARISON_STOPPING = _schema("arm episodes", f"{_BOUNDS} baseline {_DIFFERENCE} n_seeds n_problems", mean=_SHARE)
COMPARISON_MAJORITY = _schema("arm k", f"accuracy {_BOUNDS} tokens")
COMPARISON_VOTING = _schema("arm baseline_k", f"baseline level ratio {_BOUNDS}", tokens=_or_none(_SPENT))


class TableSchema:
    """The schema of a table by its name in the catalog, without what stands for the policy (`base_`, `trained_`)."""

    _OF_ROLLOUTS = ("samples", "linearised")

    def __init__(self, table: str) -> None:
        self.schema: DataFrameSchema = ROLLOUTS if table in self._OF_ROLLOUTS else globals()[table.upper()]

    def validate(self, data: pd.DataFrame) -> pd.DataFrame:
        """The table; raises pandera's SchemaError for what does not fit."""
        return self.schema.validate(data)
