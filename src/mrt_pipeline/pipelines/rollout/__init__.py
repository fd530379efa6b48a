"""Pipeline `rollout`: the base policy thinks, in episodes."""

from mrt_pipeline.pipelines.rollout.pipeline import create_pipeline

__all__ = ["create_pipeline"]
