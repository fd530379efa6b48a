"""Pipeline `train`: a look at the base, then training by RL or STaR."""

from mrt_pipeline.pipelines.train.pipeline import create_pipeline as create_pipeline
