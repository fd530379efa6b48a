"""The RL loop, the same for every algorithm: sample, label, weigh, update.

A step samples `groups` problems with `group_size` rollouts each. In `forced_fraction` of the groups the thought is
forced on to the full budget, so that states past the natural end are trained too. If the algorithm asks for it,
rollouts start from stale prefixes, sampled anew every few steps, and the prover labels what the algorithm needs. The
algorithm turns that into token weights, and the learner makes its update, from the policy as it is or (STaR) from the
base.
Training ends when the policy has sampled `sampled_tokens` tokens: algorithms are compared at equal numbers of these.
"""

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np

from mrt_pipeline.algorithms.base import Algorithm
from mrt_pipeline.learner.checkpoint import load_checkpoint, save_checkpoint
from mrt_pipeline.learner.learner import Learner
from mrt_pipeline.learner.mismatch import correct_mismatch
from mrt_pipeline.learner.sampling import Setup, sample_prefixes
from mrt_pipeline.learner.step import sample_batch
from mrt_pipeline.mrt.regret import normalized_regret
from mrt_pipeline.rollouts.label import LabelledRollout, Prefix, label_rollouts
from mrt_pipeline.tasks.base import Problem


@dataclass(frozen=True)
class ReinforceSettings:
    """Size and rhythm of an RL run.

    sampled_tokens: training ends after the step in which the policy has sampled this many.
    groups, group_size: problems of a step, and rollouts of each.
    forced_fraction: share of the groups whose thoughts are forced on to the budget.
    ratio_cap: see `correct_mismatch`; for engines with weights of their own.
    validate_every, checkpoint_every: in steps. A validation and a checkpoint are also made at the end.
    """

    sampled_tokens: int
    groups: int
    group_size: int
    forced_fraction: float
    ratio_cap: float
    validate_every: int
    checkpoint_every: int


_START = {"step": 0, "sampled_tokens": 0, "prover_tokens": 0, "prefixes": [], "history": []}


def reinforce(
    setup: Setup,
    algorithm: Algorithm,
    learner: Learner,
    problems: Sequence[Problem],
    validation: Sequence[Problem],
    settings: ReinforceSettings,
    seed: int,
    checkpoint: Path,
    log: Callable[[dict[str, float], int], None],
    show: Callable[[list[LabelledRollout], int], None] = lambda rollouts, step: None,
) -> list[dict[str, float]]:
    """Train `setup.policy` in place; return the metrics of all steps, each with its "step".

    If `checkpoint` holds a state of this run, training goes on from there, and the metrics of the steps before are
    logged again, so that the record of the resumed run is complete.
    log: called with the metrics of a step. show: called with a few rollouts after each validation.
    """
    if algorithm.from_base:
        learner.remember_start()
    state = load_checkpoint(checkpoint, learner) or _START
    setup.engine.update_weights()
    history: list[dict[str, float]] = list(state["history"])
    for metrics in history:
        log({name: value for name, value in metrics.items() if name != "step"}, int(metrics["step"]))
    sampled_tokens, prover_tokens = state["sampled_tokens"], state["prover_tokens"]
    prefixes = [Prefix(np.array(thought, dtype=np.int64), success) for thought, success in state["prefixes"]]
    step = state["step"]
    if step == 0:
        metrics = validate(setup, validation, seed, show, 0)
        history.append({"step": 0, **metrics})
        log(metrics, 0)
    while sampled_tokens < settings.sampled_tokens:
        clock, before = _Clock(), sampled_tokens
        start = step * settings.groups
        chosen = [problems[i] for i in _problem_order(len(problems), start, settings.groups, seed)]
        age = step % algorithm.refresh_every if algorithm.refresh_every else 0
        if algorithm.refresh_every and age == 0:
            coming = _problem_order(len(problems), start, settings.groups * algorithm.refresh_every, seed)
            prefixes, sampled, proved = sample_prefixes(
                setup, [problems[i] for i in coming], (_seed(seed, step, 9), _seed(seed, step, 10))
            )
            sampled_tokens, prover_tokens = sampled_tokens + sampled, prover_tokens + proved
            clock.lap("prefixes")
        metrics, batch = sample_batch(
            setup,
            algorithm,
            chosen,
            prefixes[age * settings.groups : (age + 1) * settings.groups],
            settings.group_size,
            settings.forced_fraction,
            partial(_seed, seed, step),
            clock.lap,
        )
        if not setup.engine.shares_weights:
            batch, mismatch = correct_mismatch(learner, batch, settings.ratio_cap)
            metrics |= {f"train/{name}": value for name, value in mismatch.items()}
        fraction_done, span = sampled_tokens / settings.sampled_tokens, 0.0
        if algorithm.from_base:
            learner.restart()
            fraction_done, span = 0.0, 1.0  # a training of its own
        updated = learner.update(batch, fraction_done, _seed(seed, step, 3), span)
        metrics |= {f"train/{name}": value for name, value in updated.items()}
        setup.engine.update_weights()
        clock.lap("update")
        sampled_tokens += int(metrics.pop("sampled_tokens"))
        prover_tokens += int(metrics.pop("prover_tokens"))
        step += 1
        done = sampled_tokens >= settings.sampled_tokens
        if step % settings.validate_every == 0 or done:
            metrics |= validate(setup, validation, seed, show, step)
        metrics |= {"train/sampled_tokens": sampled_tokens, "train/prover_tokens": prover_tokens, **clock.seconds}
        metrics["time/tokens_per_second"] = (sampled_tokens - before) / sum(clock.seconds.values())
        history.append({"step": step, **metrics})
        log(metrics, step)
        if step % settings.checkpoint_every == 0 or done:
            state = {
                "step": step,
                "sampled_tokens": sampled_tokens,
                "prover_tokens": prover_tokens,
                "prefixes": [(prefix.thought.tolist(), prefix.success) for prefix in prefixes],
                "history": history,
            }
            save_checkpoint(checkpoint, learner, state)
    return history


def validate(
    setup: Setup, problems: Sequence[Problem], seed: int, show: Callable[[list[LabelledRollout], int], None], step: int
) -> dict[str, float]:
    """One natural rollout of each validation problem, the same seed every time: accuracy, length and regret."""
    if not problems:
        return {}
    rollouts = setup.sample(problems, 1, _seed(seed, 0, 4))
    labelled, _ = label_rollouts(setup.engine, setup.prover, setup.policy.template, rollouts, _seed(seed, 0, 5))
    show(labelled, step)
    budget = setup.rollout.thinking_budget
    return {
        "validation/accuracy": float(np.mean([rollout.reward for rollout in rollouts])),
        "validation/thinking_tokens": float(np.mean([len(rollout.thought) for rollout in rollouts])),
        "validation/regret": float(np.mean([normalized_regret(*item.curve(), budget) for item in labelled])),
    }


def _problem_order(n_problems: int, start: int, n: int, seed: int) -> list[int]:
    """Problems `start` to `start + n` of shuffled passes over all of them, computed from these numbers alone."""
    indices: list[int] = []
    while len(indices) < n:
        epoch, offset = divmod(start + len(indices), n_problems)
        permutation = np.random.default_rng([seed, 6, epoch]).permutation(n_problems)
        indices += permutation[offset : offset + n - len(indices)].tolist()
    return indices


def _seed(seed: int, step: int, purpose: int) -> int:
    """An independent seed for each purpose of each step."""
    return int(np.random.SeedSequence([seed, step, purpose]).generate_state(1, np.uint64)[0] >> np.uint64(2))


class _Clock:
    def __init__(self) -> None:
        self.seconds: dict[str, float] = {}
        self._last = time.perf_counter()

    def lap(self, name: str) -> None:
        now = time.perf_counter()
        self.seconds[f"time/{name}"] = now - self._last
        self._last = now
