"""Forced answers as votes: what a policy answers when its thought is stopped at an episode boundary, several times."""

from collections.abc import Sequence

import numpy as np
import pandas as pd
from transformers import PreTrainedTokenizerBase

from mrt_pipeline.engines.base import Completion
from mrt_pipeline.policy.template import Template
from mrt_pipeline.rollouts.prover import Query, n_tokens, read_answer
from mrt_pipeline.tasks.base import Grade, Task


def votes_table(
    rollouts: pd.DataFrame,
    queries: Sequence[Query],
    found: Sequence[Sequence[Sequence[Completion]]],
    task: Task,
    tokenizer: PreTrainedTokenizerBase,
    template: Template,
) -> pd.DataFrame:
    """One row an episode boundary: the answers forced there, as votes count them (empty: none), rewards and tokens."""
    rows = []
    for row, query, answers in zip(rollouts.itertuples(index=False), queries, found, strict=True):
        for episode, (cut, forced, sampled) in enumerate(zip(query.cuts, query.forced, answers, strict=True), start=-1):
            texts = [read_answer(tokenizer, template, answer, forced) for answer in sampled]
            grades = [task.grade(query.problem, text) if text else Grade.UNPARSED for text in texts]
            rows.append(
                {
                    "policy": row.policy,
                    "problem_id": row.problem_id,
                    "rollout_id": row.rollout_id,
                    "episode": episode,
                    "n_tokens": int(cut),
                    "answers": [
                        "" if grade is Grade.UNPARSED else task.read(text).strip()
                        for text, grade in zip(texts, grades, strict=True)
                    ],
                    "rewards": np.array([grade.reward for grade in grades], dtype=np.float64),
                    "answer_tokens": np.array([n_tokens(answer) for answer in sampled], dtype=np.int64),
                }
            )
    return pd.DataFrame(rows)
