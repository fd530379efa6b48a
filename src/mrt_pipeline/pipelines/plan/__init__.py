"""Pipeline `plan`: what a run will need, on the real problems, without loading weights."""

from mrt_pipeline.pipelines.plan.pipeline import create_pipeline as create_pipeline
