"""Kedro's project settings."""

import os

from mrt_pipeline.config_loader import HydraConfigLoader
from mrt_pipeline.paths import data_folder
from mrt_pipeline.tracking.hooks import TrackingHook

HOOKS = (TrackingHook(),)
DISABLE_HOOKS_FOR_PLUGINS = ("kedro_mlflow",)  # TrackingHook extends its hook and takes its place
CONFIG_LOADER_CLASS = HydraConfigLoader
CONFIG_LOADER_ARGS = {
    "base_env": "base",
    "default_run_env": "local",
    "custom_resolvers": {
        "data": lambda: data_folder().as_posix(),
        "environment": lambda name, default: os.environ.get(name) or default,
    },
}
