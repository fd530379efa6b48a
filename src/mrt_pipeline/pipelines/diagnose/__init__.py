"""Pipeline `diagnose`: which credit can be expected to help, before anything is trained."""

from mrt_pipeline.pipelines.diagnose.pipeline import create_pipeline as create_pipeline
