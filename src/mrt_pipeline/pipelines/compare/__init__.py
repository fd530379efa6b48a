"""Pipeline `compare`: finished runs against each other."""

from mrt_pipeline.pipelines.compare.pipeline import create_pipeline as create_pipeline
