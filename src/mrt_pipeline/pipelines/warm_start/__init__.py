"""Pipeline `warm_start`: a policy made from scratch learns to search, imperfectly."""

from mrt_pipeline.pipelines.warm_start.pipeline import create_pipeline

__all__ = ["create_pipeline"]
