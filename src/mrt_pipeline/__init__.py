"""Meta Reinforcement Fine-Tuning (MRT, arXiv 2503.07572) as an orchestrated, tracked pipeline."""

__version__ = "0.1.0"

import os
import warnings

# Before mlflow is imported anywhere. Kedro's own telemetry is refused by the file .telemetry.
os.environ.setdefault("MLFLOW_DISABLE_TELEMETRY", "true")
os.environ.setdefault("DO_NOT_TRACK", "true")

# kedro-mlflow defines an MLflow model class without type hints; nothing a user of this project can act on.
warnings.filterwarnings("ignore", message=".*Add type hints to the `predict` method.*")
