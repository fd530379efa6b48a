"""Pipeline `ingest`: a task becomes a table of problems."""

from mrt_pipeline.pipelines.ingest.pipeline import create_pipeline as create_pipeline
