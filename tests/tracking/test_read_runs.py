import mlflow
import pandas as pd
import pytest

from mrt_pipeline.errors import InputError
from mrt_pipeline.tracking.read_runs import _TABLES, find_runs


@pytest.fixture(scope="module")
def log_run(tmp_path_factory):
    """Logs a finished run of mrt_rl with these tables into an experiment, and returns its id."""
    folder = tmp_path_factory.mktemp("mlflow")
    before = mlflow.get_tracking_uri()
    mlflow.set_tracking_uri(f"sqlite:///{folder}/mlflow.db")

    def log(experiment, tables=_TABLES, seed=1, **tags):
        if mlflow.get_experiment_by_name(experiment) is None:
            mlflow.create_experiment(experiment, artifact_location=str(folder / experiment))
        mlflow.set_experiment(experiment)
        with mlflow.start_run(tags={"pipeline": "mrt_rl", **tags}) as run:
            mlflow.log_dict({"seed": seed}, "parameters.yaml")
            for name in tables:
                path = folder / f"{name}.parquet"
                pd.DataFrame({"name": [name]}).to_parquet(path)
                mlflow.log_artifact(str(path), "tables")
        return run.info.run_id

    yield log
    mlflow.set_tracking_uri(before)


def test_the_runs_of_an_experiment_are_found_and_their_tables_read_when_asked_for(log_run):
    first = log_run("two", seed=1)
    second = log_run("two", [*_TABLES, "trained_votes", "other"], seed=2)
    found = {run.run_id: run for run in find_runs(["two", first])}
    assert found.keys() == {first, second}
    assert found[first].parameters == {"seed": 1}
    assert found[first].started <= found[second].started
    assert found[first].has == frozenset(_TABLES) and found[second].has == {*_TABLES, "trained_votes"}
    tables = found[second].tables
    assert {name: table["name"].item() for name, table in tables.items()} == {n: n for n in found[second].has}
    assert found[second].tables is tables  # read once


def test_partial_runs_are_left_out_with_a_line_that_says_so(log_run, caplog):
    whole, partial = log_run("both", seed=1, partial="false"), log_run("both", seed=2, partial="true")
    assert [run.run_id for run in find_runs(["both"])] == [whole]
    assert [run.run_id for run in find_runs([whole, partial])] == [whole]
    assert caplog.text.count(f"a part of its pipeline only: run {partial}") == 2
    with pytest.raises(InputError, match="no finished training run"):
        find_runs([partial])


def test_a_run_without_a_table_that_comparing_needs_is_refused_by_name(log_run):
    run = log_run("lacking", [name for name in _TABLES if name != "trained_samples"])
    with pytest.raises(InputError, match=rf"run '{run}' lacks tables that comparing needs \(trained_samples\)"):
        find_runs([run])
