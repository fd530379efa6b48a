"""Schemas of the tables that the pipeline's nodes exchange and write; see docs/tables.md."""

from pandera.pandas import Check, Column, DataFrameSchema

from mrt_pipeline.evaluation.regret_sources import DIFFICULTIES, QUANTITIES, SOURCES
from mrt_pipeline.tasks.base import Grade

_PROBABILITY = Check.in_range(0.0, 1.0)
_COUNT = Check.ge(0)
_TRACE = ["policy", "problem_id", "rollout_id"]

PROBLEMS = DataFrameSchema(
    {
        "problem_id": Column(str),
        "source": Column(str),
        "split": Column(str, Check.isin(["train", "validation", "test"])),
        "question": Column(str),
        "answers": Column(object),
        "metadata": Column(str),
    },
    unique=["problem_id"],
    strict=True,
)

ROLLOUTS = DataFrameSchema(
    {
        "policy": Column(str),
        "problem_id": Column(str),
        "rollout_id": Column(int, _COUNT),
        "group": Column(int, _COUNT),
        "prompt_token_ids": Column(object),
        "thought_token_ids": Column(object),
        "thought_choice_ids": Column(object),
        "thought_logprobs": Column(object),
        "boundaries": Column(object),
        "natural_close_token_ids": Column(object),
        "close_token_ids": Column(object),
        "close_logprob": Column(float, Check.le(0)),
        "answer_token_ids": Column(object),
        "answer_logprobs": Column(object),
        "text": Column(str),
        "answer_text": Column(str),
        "reward": Column(float, _PROBABILITY),
        "grade": Column(str, Check.isin([grade.value for grade in Grade])),
        "stop_reason": Column(str, Check.isin(["stop", "length", "eos"])),
        "natural_length": Column(int, _COUNT),
        "stream_length": Column(int, _COUNT),
        "dropped_tokens": Column(int, _COUNT),
        "min_thinking": Column(int, _COUNT),
        "stopped_at": Column(float, _COUNT, nullable=True),
        "stopped_reward": Column(float, _PROBABILITY, nullable=True),
        "seed": Column(int),
    },
    unique=_TRACE,
    strict=True,
)

EPISODES = DataFrameSchema(
    {
        "policy": Column(str),
        "problem_id": Column(str),
        "rollout_id": Column(int, _COUNT),
        "episode": Column(int, Check.ge(-1)),
        "n_tokens": Column(int, _COUNT),
        "success": Column(float, _PROBABILITY),
        "success_sem": Column(float, _COUNT),
        "progress": Column(float, Check.in_range(-1.0, 1.0), nullable=True),
        "forced": Column(bool),
        "stopped": Column(bool),
        "prover": Column(str),
    },
    unique=[*_TRACE, "episode", "stopped"],
    strict=True,
)

LABELS = DataFrameSchema(
    {
        "policy": Column(str),
        "problem_id": Column(str),
        "rollout_id": Column(int, _COUNT),
        "cuts": Column(object),
        "cut_success": Column(object),
        "prover_tokens": Column(int, _COUNT),
    },
    unique=_TRACE,
    strict=True,
)

ANYTIME = DataFrameSchema(
    {
        "policy": Column(str),
        "problem_id": Column(str),
        "rollout_id": Column(int, _COUNT),
        "n_tokens": Column(int, _COUNT),
        "success": Column(float, _PROBABILITY),
        "forced": Column(bool),
    },
    unique=[*_TRACE, "n_tokens", "forced"],
    strict=True,
)

VOTES = DataFrameSchema(
    {
        "policy": Column(str),
        "problem_id": Column(str),
        "rollout_id": Column(int, _COUNT),
        "episode": Column(int, Check.ge(-1)),
        "n_tokens": Column(int, _COUNT),
        "answers": Column(object),
        "rewards": Column(object),
        "answer_tokens": Column(object),
    },
    unique=[*_TRACE, "episode"],
    strict=True,
)

_INTERVAL = {
    "policy": Column(str),
    "budget": Column(int, Check.gt(0)),
    "forced": Column(bool),
    "ci_low": Column(float),
    "ci_high": Column(float),
    "difference": Column(float, Check.in_range(-1.0, 1.0), nullable=True),
    "difference_low": Column(float, nullable=True),
    "difference_high": Column(float, nullable=True),
}

REGRET = DataFrameSchema(
    {**_INTERVAL, "regret": Column(float, _PROBABILITY), "definition": Column(str)},
    unique=["policy", "budget", "forced", "definition"],
    strict=True,
)

ACCURACY = DataFrameSchema(
    {**_INTERVAL, "accuracy": Column(float, _PROBABILITY), "thinking_tokens": Column(float)},
    unique=["policy", "budget", "forced"],
    strict=True,
)

_POSITIVE = Check.gt(0)
_BOUNDS = {"ci_low": Column(float, nullable=True), "ci_high": Column(float, nullable=True)}
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
    **_BOUNDS,
}

REGRET_SOURCES = DataFrameSchema(
    {
        "policy": Column(str),
        "problem_id": Column(str),
        "rollout_id": Column(int, Check.ge(0)),
        "difficulty": Column(str, Check.isin(DIFFICULTIES)),
        "budget": Column(int, _POSITIVE),
        "regret": Column(float, _PROBABILITY),
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
    **_BOUNDS,
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
        "accuracy": Column(float, _PROBABILITY),
        **_BOUNDS,
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
        "regret": Column(float, _PROBABILITY),
        **_BOUNDS,
        **_DIFFERENCE,
        "n_traces": Column(int, _POSITIVE),
    },
    unique=["policy", "episodes"],
    strict=True,
)

COMPARISON = DataFrameSchema(
    {
        **_MEASURE,
        "mean": Column(float, _PROBABILITY),
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
        "level": Column(float, _PROBABILITY),
        "tokens_to_level": Column(float, _POSITIVE, nullable=True),
        "ratio": Column(float, Check.ge(0)),
        **_BOUNDS,
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
        "mean": Column(float, _PROBABILITY),
        **_BOUNDS,
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
        "accuracy": Column(float, _PROBABILITY),
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
        "accuracy": Column(float, _PROBABILITY),
        **_BOUNDS,
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
        "level": Column(float, _PROBABILITY),
        "tokens": Column(float, _POSITIVE, nullable=True),
        "ratio": Column(float, Check.ge(0)),
        **_BOUNDS,
    },
    unique=["arm", "baseline_k"],
    strict=True,
)
