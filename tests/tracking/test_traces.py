import mlflow
import numpy as np
import pandas as pd
import pytest

from mrt_pipeline.tracking.journal import Journal
from mrt_pipeline.tracking.records import new_address
from mrt_pipeline.tracking.runs import use
from mrt_pipeline.tracking.traces import log_traces, thoughts

TOKENS = {1: " four", 2: " five", 3: " six", 4: " done"}


@pytest.fixture
def tables():
    rollouts = pd.DataFrame(
        {
            "policy": "base",
            "problem_id": ["a", "a", "b"],
            "rollout_id": [0, 1, 0],
            "thought_token_ids": [np.array([1, 2, 3])] * 3,
            "answer_token_ids": [np.array([4])] * 3,
            "answer_text": "done",
            "grade": ["correct", "wrong", "wrong"],
            "reward": [1.0, 0.0, 0.0],
            "stop_reason": "length",
            "natural_length": 2,
        }
    )
    episodes = pd.DataFrame(
        [
            {"problem_id": problem, "rollout_id": rollout, "episode": j - 1, "n_tokens": n, "success": success}
            for problem, rollout in (("a", 0), ("a", 1), ("b", 0))
            for j, (n, success) in enumerate([(0, 0.25), (2, 1.0), (3, 0.5)])
        ]
    )
    episodes["progress"] = episodes.groupby(["problem_id", "rollout_id"])["success"].diff()
    episodes["forced"], episodes["stopped"] = episodes["n_tokens"] > 2, False
    problems = pd.DataFrame({"problem_id": ["a", "b", "c"], "question": ["Of a?", "Of b?", "Of c?"]})
    return rollouts, episodes, problems


def decode(ids):
    return "".join(TOKENS[int(token)] for token in ids)


def test_the_first_rollout_of_each_problem_is_shown(tables):
    shown = thoughts(*tables, n=5)
    assert [(t.question, t.rollout["rollout_id"], len(t.episodes)) for t in shown] == [("Of a?", 0, 3), ("Of b?", 0, 3)]
    assert len(thoughts(*tables, n=1)) == 1 and not thoughts(*tables, n=0)


def test_a_trace_has_a_span_for_each_episode_and_one_for_the_answer(tables, store, tmp_path):
    journal = Journal(tmp_path / "outbox", new_address("test"))
    use(journal)
    log_traces(thoughts(*tables, n=1), decode)
    journal.close()
    assert not journal.n_waiting
    (trace,) = mlflow.search_traces(locations=[store], run_id=journal.run_id, return_type="list")
    assert trace.info.tags["policy"] == "base" and trace.info.execution_duration == 4
    assert trace.info.request_preview == '{"question": "Of a?"}'
    root, first, second, answer = sorted(trace.data.spans, key=lambda span: (span.start_time_ns, bool(span.parent_id)))
    assert root.inputs == {"question": "Of a?"} and root.outputs == {"answer": "done", "grade": "correct"}
    assert {span.parent_id for span in (first, second, answer)} == {root.span_id}
    assert [span.outputs["text"] for span in (first, second, answer)] == [" four five", " six", " done"]
    assert (first.attributes["J_before"], first.attributes["J_after"]) == (0.25, 1.0)
    assert (second.attributes["progress"], second.attributes["forced"]) == (-0.5, True)
    assert [span.end_time_ns - span.start_time_ns for span in (first, second, answer)] == [2e6, 1e6, 1e6]
    assert first.name == "episode 0  J 0.25 to 1.00"


def test_without_a_run_nothing_is_logged(tables, store):
    log_traces(thoughts(*tables, n=1), decode)
    assert not mlflow.search_traces(locations=[store], return_type="list")
