"""Schemas of the tables that `evaluate` and `compare` write. See docs/tables.md."""

from pandera.pandas import Check, Column, DataFrameSchema

from mrt_pipeline.evaluation.regret_sources import DIFFICULTIES, QUANTITIES, SOURCES

_FRACTION = Check.in_range(0.0, 1.0)
_POSITIVE = Check.gt(0)
_INTERVAL = {"ci_low": Column(float, nullable=True), "ci_high": Column(float, nullable=True)}
_DIFFERENCE = {
    "difference": Column(float, nullable=True),
    "difference_low": Column(float, nullable=True),
    "difference_high": Column(float, nullable=True),
}
_MEASURE = {
    "arm": Column(str),
    "quantity": Column(str, Check.isin(["regret", "accuracy"])),
    "budget": Column(int, _POSITIVE),
    "forced": Column(bool),
    **_INTERVAL,
}

REGRET_SOURCES = DataFrameSchema(
    {
        "policy": Column(str),
        "problem_id": Column(str),
        "rollout_id": Column(int, Check.ge(0)),
        "difficulty": Column(str, Check.isin(DIFFICULTIES)),
        "budget": Column(int, _POSITIVE),
        "regret": Column(float, _FRACTION),
        **{source: Column(float, Check.in_range(0.0, 1.0)) for source in SOURCES},
        "found_at": Column(float, Check.ge(0), nullable=True),
        "tokens_after": Column(float, Check.ge(0), nullable=True),
    },
    unique=["policy", "problem_id", "rollout_id"],
    strict=True,
)

_SOURCES_SUMMARY = {
    "difficulty": Column(str, Check.isin([*DIFFICULTIES, "all"])),
    "quantity": Column(str, Check.isin(QUANTITIES)),
    "budget": Column(int, _POSITIVE),
    "mean": Column(float, Check.ge(0), nullable=True),
    **_INTERVAL,
    **_DIFFERENCE,
    "n_problems": Column(int, Check.ge(0)),
}

REGRET_SOURCES_SUMMARY = DataFrameSchema(
    {"policy": Column(str), **_SOURCES_SUMMARY}, unique=["policy", "difficulty", "quantity"], strict=True
)

STOP_AND_VOTE = DataFrameSchema(
    {
        "policy": Column(str),
        "method": Column(str, Check.isin(["vote", "direct"])),
        "episode": Column(int, Check.ge(0)),
        "p": Column(int, _POSITIVE),
        "accuracy": Column(float, _FRACTION),
        **_INTERVAL,
        **_DIFFERENCE,
        "n_tokens": Column(float, Check.ge(0)),
    },
    unique=["policy", "method", "episode", "p"],
    strict=True,
)

STOPPING_REGRET = DataFrameSchema(
    {
        "policy": Column(str),
        "episodes": Column(int, _POSITIVE),
        "regret": Column(float, _FRACTION),
        **_INTERVAL,
        **_DIFFERENCE,
        "n_traces": Column(int, _POSITIVE),
    },
    unique=["policy", "episodes"],
    strict=True,
)

COMPARISON = DataFrameSchema(
    {
        **_MEASURE,
        "mean": Column(float, _FRACTION),
        "thinking_tokens": Column(float, Check.ge(0)),
        "n_seeds": Column(int, _POSITIVE),
        "n_problems": Column(int, _POSITIVE),
    },
    unique=["arm", "quantity", "budget", "forced"],
    strict=True,
)

DIFFERENCES = DataFrameSchema(
    {
        **_MEASURE,
        "against": Column(str),
        "difference": Column(float, Check.in_range(-1.0, 1.0)),
        "excludes_zero": Column(bool),
    },
    unique=["arm", "against", "quantity", "budget", "forced"],
    strict=True,
)

GAINS = DataFrameSchema(
    {**_MEASURE, "baseline": Column(str), "ratio": Column(float, nullable=True)},
    unique=["arm", "quantity", "budget", "forced"],
    strict=True,
)

EFFICIENCY = DataFrameSchema(
    {
        "arm": Column(str, unique=True),
        "baseline": Column(str),
        "level": Column(float, _FRACTION),
        "tokens_to_level": Column(float, _POSITIVE, nullable=True),
        "ratio": Column(float, Check.ge(0)),
        **_INTERVAL,
        "sampled_tokens": Column(float, _POSITIVE),
        "prover_tokens": Column(float, Check.ge(0)),
    },
    strict=True,
)

COMPARISON_SOURCES = DataFrameSchema(
    {"arm": Column(str), **_SOURCES_SUMMARY, "baseline": Column(str), "n_seeds": Column(int, _POSITIVE)},
    unique=["arm", "difficulty", "quantity"],
    strict=True,
)

COMPARISON_STOPPING = DataFrameSchema(
    {
        "arm": Column(str),
        "episodes": Column(int, _POSITIVE),
        "mean": Column(float, _FRACTION),
        **_INTERVAL,
        "baseline": Column(str),
        **_DIFFERENCE,
        "n_seeds": Column(int, _POSITIVE),
        "n_problems": Column(int, _POSITIVE),
    },
    unique=["arm", "episodes"],
    strict=True,
)

MAJORITY = DataFrameSchema(
    {
        "policy": Column(str),
        "linearised": Column(bool),
        "k": Column(int, _POSITIVE),
        "accuracy": Column(float, _FRACTION),
        "ci_low": Column(float),
        "ci_high": Column(float),
        "tokens": Column(float, _POSITIVE),
    },
    unique=["policy", "linearised", "k"],
    strict=True,
)

COMPARISON_MAJORITY = DataFrameSchema(
    {
        "arm": Column(str),
        "k": Column(int, _POSITIVE),
        "accuracy": Column(float, _FRACTION),
        **_INTERVAL,
        "tokens": Column(float, _POSITIVE),
    },
    unique=["arm", "k"],
    strict=True,
)

VOTING = DataFrameSchema(
    {
        "arm": Column(str),
        "baseline": Column(str),
        "baseline_k": Column(int, _POSITIVE),
        "level": Column(float, _FRACTION),
        "tokens": Column(float, _POSITIVE, nullable=True),
        "ratio": Column(float, Check.ge(0)),
        **_INTERVAL,
    },
    unique=["arm", "baseline_k"],
    strict=True,
)
