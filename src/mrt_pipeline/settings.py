"""Kedro's project settings."""

from typing import Any

from mrt_pipeline.config_loader import HydraConfigLoader
from mrt_pipeline.console import ConsoleHook
from mrt_pipeline.paths import data_folder
from mrt_pipeline.tracking.freshness import FreshnessHook
from mrt_pipeline.tracking.hooks import TrackingHook

HOOKS = (ConsoleHook(), FreshnessHook(), TrackingHook())  # the last is called first
DISABLE_HOOKS_FOR_PLUGINS = ("kedro_mlflow",)  # where it is installed for other projects
CONFIG_LOADER_CLASS = HydraConfigLoader
CONFIG_LOADER_ARGS: dict[str, Any] = {
    "base_env": "base",
    "default_run_env": "local",
    "config_patterns": {"mlflow": ["mlflow*"]},
    "custom_resolvers": {"data": lambda: data_folder().as_posix()},
}
