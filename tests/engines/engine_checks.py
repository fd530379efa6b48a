"""What the tests of engines have in common."""

import numpy as np
import pytest

from mrt_pipeline.engines.base import NO_CHOICE


def same(left, right, atol=0.0):
    return len(left) == len(right) and all(
        np.array_equal(a.token_ids, b.token_ids)
        and np.array_equal(a.choices, b.choices)
        and np.allclose(a.logprobs, b.logprobs, atol=atol)
        and a.stop_token_id == b.stop_token_id
        and a.natural_length == b.natural_length
        for a, b in zip(left, right, strict=True)
    )


def check_logprobs(all_logprobs, model, prompt, completion, temperature):
    """Against one plain forward pass over prompt and completion."""
    expected = all_logprobs(model, [*prompt, *completion.token_ids], temperature)[len(prompt) - 1 :]
    for i, choice in enumerate(completion.choices):
        if choice != NO_CHOICE:
            assert completion.logprobs[i] == pytest.approx(expected[i, choice], abs=1e-4)
        else:
            assert completion.logprobs[i] == 0
    if completion.stop_token_id is not None:
        assert completion.stop_logprob == pytest.approx(expected[-1, completion.stop_token_id], abs=1e-4)
    else:
        assert completion.stop_logprob == 0


def random_queries(rng, n, n_answers=5, answer_length=4):
    traces = [rng.integers(0, 16, size=rng.integers(2, 14)) for _ in range(n)]
    cuts = [
        np.sort(rng.choice(np.arange(1, len(t) + 1), size=rng.integers(1, min(5, len(t)) + 1), replace=False))
        for t in traces
    ]
    answers = [
        [rng.integers(0, 3, size=rng.integers(1, answer_length + 1)).tolist() for _ in range(n_answers)] for _ in traces
    ]  # few tokens, so that prefixes are shared
    return traces, cuts, answers
