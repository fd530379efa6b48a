"""Pipeline `evaluate`: budget extrapolation of base and trained policy."""

from mrt_pipeline.pipelines.evaluate.pipeline import create_pipeline

__all__ = ["create_pipeline"]
