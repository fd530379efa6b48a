"""Kedro's project settings."""

from collections.abc import Iterator
from functools import cached_property
from typing import Any

from mrt_pipeline.config_loader import HydraConfigLoader
from mrt_pipeline.paths import data_folder


class _Hooks:
    """Imported when a session asks for them: MLflow takes seconds, which `kedro --help` need not wait for."""

    @cached_property
    def _made(self) -> list[object]:
        from mrt_pipeline.console import ConsoleHook
        from mrt_pipeline.tracking.freshness import FreshnessHook
        from mrt_pipeline.tracking.hooks import TrackingHook

        return [ConsoleHook(), FreshnessHook(), TrackingHook()]  # the last is called first

    def __iter__(self) -> Iterator[object]:
        return iter(self._made)


HOOKS = _Hooks()
DISABLE_HOOKS_FOR_PLUGINS = ("kedro_mlflow",)  # where it is installed for other projects
CONFIG_LOADER_CLASS = HydraConfigLoader
CONFIG_LOADER_ARGS: dict[str, Any] = {
    "base_env": "base",
    "default_run_env": "local",
    "config_patterns": {"mlflow": ["mlflow*"]},
    "custom_resolvers": {"data": lambda: data_folder().as_posix()},
}
