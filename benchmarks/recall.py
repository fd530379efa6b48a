"""Does a base policy recall what it found, and does more thinking help it? For choosing a warm start.

    python benchmarks/recall.py "policy.warm_start.steps=2400" "policy.warm_start.steps=4800,task.cut_fraction=0.5" ...

Each argument is a list of overrides, as for `kedro run --params`; "" is the default. The base policy of each is made,
or taken if it is there already, and asked on the validation problems: J so many episodes after the first attempt that
says it is right, traces forced on to the largest budget, and accuracy at every budget. Two traces of each problem.
"""

import sys
import time
from pathlib import Path

import numpy as np

from mrt_pipeline.cli import parse_overrides
from mrt_pipeline.config import Parameters
from mrt_pipeline.config_loader import compose_parameters
from mrt_pipeline.evaluation.diagnosis import recall
from mrt_pipeline.evaluation.evaluate import budgets_of
from mrt_pipeline.pipelines.base_policy.nodes import make_base_policy
from mrt_pipeline.rollouts.actor import Actor
from mrt_pipeline.rollouts.label import LabelledRollout, label_rollouts
from mrt_pipeline.tables import problems_table

LATER = (0, 1, 2, 5, 10, 15, 30)  # episodes after the find
N_TRACES = 2


def first_find(item: LabelledRollout, yes: int) -> int | None:
    """Index of the boundary at which the episode of the first right attempt ends; `diagnose` goes by J instead."""
    right = np.flatnonzero(item.rollout.thought == yes)
    return int(np.searchsorted(item.boundaries, right[0], side="right")) if len(right) else None


def measure(overrides: str) -> None:
    tree = compose_parameters(Path("conf/base/parameters").resolve(), parse_overrides(None, None, overrides))
    params = Parameters.model_validate(tree)
    task = params.task
    problems = task.problems()
    started = time.perf_counter()
    policy = make_base_policy(problems_table(problems), task, params.policy).open()
    made = time.perf_counter() - started
    budgets = budgets_of(params.rollout.thinking_budget, params.evaluation.budget_multiples)
    actor = Actor.of(policy, task, params.rollout.within(budgets[-1]), params.engine)
    chosen = [problem for problem in problems if problem.split == "validation"]
    rollouts = actor.sample(chosen, N_TRACES, 0, min_thinking=budgets[-1])
    cuts = [sorted({*budgets, *(min(b, r.natural_length) for b in budgets)}) for r in rollouts]
    labelled = label_rollouts(actor, params.prover, rollouts, 0, cuts)
    natural = [np.mean([i.success_at(min(b, i.rollout.natural_length)) for i in labelled]) for b in budgets]
    forced = [np.mean([i.success_at(b) for i in labelled]) for b in budgets]
    yes = policy.tokenizer.convert_tokens_to_ids("yes")
    curves, finds = [item.success for item in labelled], [first_find(item, yes) for item in labelled]
    later = {n: float(np.mean(values)) for n, values in recall(curves, finds, LATER).items()}
    print(f"\n{overrides or 'the default'}  (warm start {made:.0f} s, {policy.model.num_parameters()} parameters)")
    print("  J after a find: ", "  ".join(f"+{n} {value:.3f}" for n, value in later.items()))
    for name, values in (("natural", natural), ("forced on", forced)):
        print(f"  accuracy, {name:9}:", "  ".join(f"{b} {v:.3f}" for b, v in zip(budgets, values, strict=True)))
    print("  thinking tokens, natural:", round(float(np.mean([r.natural_length for r in rollouts])), 1), flush=True)


if __name__ == "__main__":
    for argument in sys.argv[1:] or [""]:
        measure(argument)
