"""Meta Reinforcement Fine-Tuning (MRT, arXiv 2503.07572) as an orchestrated, tracked pipeline."""

import os

__version__ = "0.1.0"

# Before mlflow is imported anywhere. Kedro's own telemetry is refused by the file .telemetry.
os.environ.setdefault("MLFLOW_DISABLE_TELEMETRY", "true")
os.environ.setdefault("DO_NOT_TRACK", "true")
os.environ.setdefault("MLFLOW_ENABLE_ARTIFACTS_PROGRESS_BAR", "false")  # `compare` reads many small files
