"""The pipelines one can run."""

from kedro.pipeline import Pipeline

from mrt_pipeline.pipelines import (
    audit,
    base_policy,
    compare,
    diagnose,
    evaluate,
    ingest,
    plan,
    progress,
    rollout,
    train,
)


def register_pipelines() -> dict[str, Pipeline]:
    """Every stage alone; `mrt_rl`, `mrt_star`: all in order, for algorithms of their kind; others train nothing."""
    stages = {
        "ingest": ingest.create_pipeline(),
        "base_policy": base_policy.create_pipeline(),
        "rollout": rollout.create_pipeline(),
        "progress": progress.create_pipeline(),
        "train": train.create_pipeline(),
        "evaluate_base": evaluate.held_out("base"),
        "evaluate_trained": evaluate.held_out("trained") + evaluate.measures("base", "trained"),
    }
    whole = sum(stages.values(), Pipeline([]))
    others = {
        "evaluate": stages["ingest"] + stages["base_policy"] + evaluate.create_pipeline(),
        "compare": compare.create_pipeline(),
        "plan": plan.create_pipeline(),
        "audit": audit.create_pipeline(),
        "diagnose": stages["ingest"] + stages["base_policy"] + diagnose.create_pipeline(),
    }
    return {**stages, **others, "mrt_rl": whole, "mrt_star": whole, "__default__": whole}
