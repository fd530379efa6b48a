"""Pipeline `base_policy`: the policy to begin with, made from scratch or found."""

from mrt_pipeline.pipelines.base_policy.pipeline import create_pipeline as create_pipeline
