"""Pipeline `audit`: how well traces that exist use their thinking."""

from mrt_pipeline.pipelines.audit.pipeline import create_pipeline as create_pipeline
