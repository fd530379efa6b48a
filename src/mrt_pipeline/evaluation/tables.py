"""Schemas of the tables that `compare` writes. See docs/tables.md."""

from pandera.pandas import Check, Column, DataFrameSchema

_FRACTION = Check.in_range(0.0, 1.0)
_POSITIVE = Check.gt(0)
_INTERVAL = {"ci_low": Column(float, nullable=True), "ci_high": Column(float, nullable=True)}
_MEASURE = {
    "arm": Column(str),
    "quantity": Column(str, Check.isin(["regret", "accuracy"])),
    "budget": Column(int, _POSITIVE),
    "forced": Column(bool),
    **_INTERVAL,
}

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

MAJORITY = DataFrameSchema(
    {
        "arm": Column(str),
        "k": Column(int, _POSITIVE),
        "accuracy": Column(float, _FRACTION),
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
        "ratio": Column(float, _POSITIVE, nullable=True),
    },
    unique=["arm", "baseline_k"],
    strict=True,
)
