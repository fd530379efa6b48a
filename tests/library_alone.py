"""The library where nothing of the pipeline is installed: imports, and trains a toy policy. `.ci/run` runs it.

python3 -m venv alone
alone/bin/pip install torch==2.13.0 transformers peft accelerate safetensors numpy pydantic
alone/bin/pip install --no-deps -e .
alone/bin/python tests/library_alone.py
"""

import sys
import tempfile
from importlib.util import find_spec
from pathlib import Path

before = set(sys.modules)
import mrt_pipeline as mrt  # noqa: E402

loaded = {name for name in set(sys.modules) - before if not name.startswith("mrt_pipeline")}
assert not loaded & {"torch", "numpy", "transformers", "pydantic"}, f"importing the library loads {sorted(loaded)}"
for name in ("kedro", "mlflow", "hydra", "pandas", "scipy", "pandera", "plotly"):
    assert find_spec(name) is None, f"{name} is installed: this is to be run where only the library's own needs are"

import torch  # noqa: E402

torch.set_num_threads(1)
task = mrt.Countdown(n_train=16, n_validation=4, n_test=4)
train = [problem for problem in task.problems() if problem.split == "train"]
tiny = mrt.TinyPolicy(hidden_size=32, n_layers=2, n_heads=2, intermediate_size=64, max_length=512)
policy = tiny.build(task)
fast = mrt.LearnerParams(optimizer="muon", learning_rate=1e-2, muon_learning_rate=0.05)
metrics = mrt.warm_start(policy, task, train, fast, steps=40, batch_size=8, seed=0, log=lambda metrics, step: None)
assert metrics["loss"] < 4, metrics

with tempfile.TemporaryDirectory() as folder:
    policy.save(Path(folder) / "policy")
    policy = mrt.open_policy(str(Path(folder) / "policy"))
    actor = mrt.Actor.of(policy, task, mrt.RolloutParams(thinking_budget=36, answer_tokens=6))
    learner_params = mrt.LearnerParams(learning_rate=1e-3, minibatches=2)
    training = mrt.TrainingParams(sampled_tokens=1500, groups=2, group_size=4, validate_every=2, learner=learner_params)
    history = mrt.reinforce(
        actor,
        mrt.MRTOnline(alpha=1.0),
        mrt.ExactProver(),
        mrt.Learner(policy.model, training.learner),
        train,
        train[:4],
        training,
        seed=0,
        checkpoint=Path(folder) / "checkpoint",
        log=lambda metrics, step: None,
    )
    sampled = mrt.SampledProver(n_answers=2)
    labelled = mrt.label_rollouts(actor, sampled, actor.sample(train[:2], 2, seed=1), seed=2)
assert len(history) > 2 and history[-1]["train/sampled_tokens"] >= 1500
regrets = [mrt.regret(*item.curve(), budget=36) for item in labelled]
credit = mrt.credit.grpo(rewards=[1, 0], groups=[0, 0], lengths=[3, 2])
assert [list(values) for values in credit.thought] == [[0.5] * 3, [-0.5] * 2]
print(f"trained {len(history) - 1} steps, mean regret {sum(regrets) / len(regrets):.3f}")
