"""A record of every kind, and what MLflow holds of a run."""

import mlflow
import pandas as pd

from mrt_pipeline.tracking.traces import Thought, trace_of


def every_kind(folder, n_weights=7000):
    """Pairs of a record and its files."""
    table, policy = folder / "table.parquet", folder / "policy"
    table.write_bytes(b"table" * 1000)
    policy.mkdir(exist_ok=True)
    (policy / "model.safetensors").write_bytes(bytes(n_weights))
    dataset = {"name": "d", "digest": "1", "source_type": "code", "source": "{}", "schema": None, "profile": None}
    metrics, tags = {"validation/regret": 0.25}, {"pipeline": "mrt_rl", "mlflow.runName": "a run"}
    model = {"kind": "model", "name": "step_2", "step": 2, "time": 1000, "metrics": metrics, "register": "countdown"}
    return [
        ({"kind": "describe", "params": {"algorithm.alpha": "1.0"}, "tags": tags}, None),
        ({"kind": "input", "dataset": dataset, "context": "problems"}, None),
        ({"kind": "metrics", "points": [["regret", 0.5, 1000, 1], ["regret", 0.25, 2000, 2]]}, None),
        ({"kind": "text", "text": "a trace", "path": "samples/step_1.txt"}, None),
        ({"kind": "artifact", "path": "tables"}, table),
        ({"kind": "artifact", "path": "policy"}, policy),
        (model, policy),
        ({"kind": "trace", "trace": trace_of(_thought(), lambda tokens: str(list(tokens)))}, None),
        ({"kind": "end", "status": "FINISHED", "time": 3000}, None),
    ]


def _thought():
    row = {"policy": "base", "problem_id": "p", "thought_token_ids": [1, 2, 3], "answer_token_ids": [4]}
    row |= {"answer_text": "4", "grade": "correct", "reward": 1.0, "stop_reason": "stop", "natural_length": 3}
    points = [(-1, 0, 0.25), (0, 2, 1.0), (1, 3, 0.5)]
    episodes = pd.DataFrame(points, columns=["episode", "n_tokens", "success"])
    return Thought(pd.Series(row), episodes.assign(progress=0.0, forced=False, stopped=False), "1 2 make 3")


def held_by(run_id):
    """What the current server has of a run, comparable with what it has of it later."""
    client = mlflow.MlflowClient()
    run = client.get_run(run_id)
    experiment = run.info.experiment_id
    models = client.search_logged_models([experiment], f"source_run_id = '{run_id}'")
    traces = client.search_traces(locations=[experiment], run_id=run_id)
    return {
        "status": run.info.status,
        "name": run.info.run_name,
        "times": (run.info.start_time, run.info.end_time),
        "params": run.data.params,
        "experiment": client.get_experiment(experiment).tags,
        "inputs": [(one.dataset.name, one.dataset.digest) for one in run.inputs.dataset_inputs],
        "metrics": {
            name: [(point.step, point.value) for point in client.get_metric_history(run_id, name)]
            for name in run.data.metrics
            if not name.startswith("validation/")
        },
        "artifacts": {
            item.path: [(part.path, part.file_size) for part in client.list_artifacts(run_id, item.path)]
            for item in client.list_artifacts(run_id)
        },
        "models": {
            model.name: (
                str(model.status),
                model.params,
                {metric.key: (metric.step, metric.value) for metric in model.metrics},
                mlflow.artifacts.list_artifacts(f"models:/{model.model_id}")[0].file_size,
            )
            for model in models
        },
        "versions": len(client.search_model_versions("name = 'countdown'")),
        "spans": [(span.name, span.inputs, span.outputs) for trace in traces for span in trace.data.spans],
    }
