"""Pipeline `mrt_rl`: training by RL."""

from mrt_pipeline.pipelines.mrt_rl.pipeline import create_pipeline

__all__ = ["create_pipeline"]
