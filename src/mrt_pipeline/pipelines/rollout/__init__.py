"""Pipeline `rollout`: the base policy thinks, in episodes."""

from mrt_pipeline.pipelines.rollout.pipeline import create_pipeline as create_pipeline
