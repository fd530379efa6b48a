"""Pipeline `progress`: the meta-prover labels every episode boundary."""

from mrt_pipeline.pipelines.progress.pipeline import create_pipeline as create_pipeline
