"""The pipelines one can run."""

from kedro.pipeline import Pipeline

from mrt_pipeline.pipelines import compare, evaluate, ingest, mrt_rl, plan, progress, rollout, warm_start


def register_pipelines() -> dict[str, Pipeline]:
    """Every stage alone; `mrt_rl` and `mrt_star`: all stages in order, for the algorithms of their kind; others."""
    stages = {
        "ingest": ingest.create_pipeline(),
        "warm_start": warm_start.create_pipeline(),
        "rollout": rollout.create_pipeline(),
        "progress": progress.create_pipeline(),
        "train": mrt_rl.create_pipeline(),
        "evaluate": evaluate.create_pipeline(),
    }
    whole = sum(stages.values(), Pipeline([]))
    others = {"compare": compare.create_pipeline(), "plan": plan.create_pipeline()}
    return {**stages, **others, "mrt_rl": whole, "mrt_star": whole, "__default__": whole}
