"""Kedro's project settings."""

import os
import warnings

# Before mlflow is imported anywhere. Kedro's own telemetry is refused by the file .telemetry.
os.environ.setdefault("MLFLOW_DISABLE_TELEMETRY", "true")
os.environ.setdefault("DO_NOT_TRACK", "true")

# kedro-mlflow defines an MLflow model class without type hints; nothing a user of this project can act on.
warnings.filterwarnings("ignore", message=".*Add type hints to the `predict` method.*")

from mrt_pipeline.config_loader import HydraConfigLoader  # noqa: E402
from mrt_pipeline.tracking.hooks import TrackingHook  # noqa: E402

HOOKS = (TrackingHook(),)
DISABLE_HOOKS_FOR_PLUGINS = ("kedro_mlflow",)  # TrackingHook extends its hook and takes its place
CONFIG_LOADER_CLASS = HydraConfigLoader
CONFIG_LOADER_ARGS = {"base_env": "base", "default_run_env": "local"}
