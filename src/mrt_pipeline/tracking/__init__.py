"""MLflow, around a `kedro run`."""

import os

# Before mlflow is imported. Kedro's own telemetry is refused by the file .telemetry.
os.environ.setdefault("MLFLOW_DISABLE_TELEMETRY", "true")
os.environ.setdefault("DO_NOT_TRACK", "true")
os.environ.setdefault("MLFLOW_ENABLE_ARTIFACTS_PROGRESS_BAR", "false")  # `compare` reads many small files
