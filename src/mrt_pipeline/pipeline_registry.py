"""The pipelines one can run."""

from kedro.pipeline import Pipeline

from mrt_pipeline.pipelines import compare, evaluate, ingest, plan, progress, rollout, train, warm_start


def register_pipelines() -> dict[str, Pipeline]:
    """Every stage alone; `mrt_rl`, `mrt_star`: all in order, for algorithms of their kind; `evaluate`: no training."""
    stages = {
        "ingest": ingest.create_pipeline(),
        "warm_start": warm_start.create_pipeline(),
        "rollout": rollout.create_pipeline(),
        "progress": progress.create_pipeline(),
        "train": train.create_pipeline(),
        "evaluate_trained": evaluate.create_trained_pipeline(),
    }
    whole = sum(stages.values(), evaluate.held_out("base"))
    others = {
        "evaluate": stages["ingest"] + stages["warm_start"] + evaluate.create_pipeline(),
        "compare": compare.create_pipeline(),
        "plan": plan.create_pipeline(),
    }
    return {**stages, **others, "mrt_rl": whole, "mrt_star": whole, "__default__": whole}
