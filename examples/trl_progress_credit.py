"""Progress credit on the tokens of TRL's GRPOTrainer; `python examples/trl_progress_credit.py` trains a toy with it.

TRL samples a group of completions for each prompt, rewards them, and gives all tokens of a completion one advantage.
`ProgressTrainer` puts the credit of MRT-online in its place, a number a token. Generation, rewards, loss and optimiser
stay TRL's. Bring your own `segment` and `prove`; those at the bottom are for this project's toy task.

Written for trl 1.16.0 and tested there in one process; two were tried once. Elsewhere check its grpo_trainer.py:
  * `_generate_and_score_completions` returns a dict with `prompt_ids`, `completion_ids`, their masks and `advantages`.
  * `_calculate_rewards` returns the rewards of all processes, (completions, reward functions).
  * The completions of one prompt are neighbours, `num_generations` of them.
  * `_compute_loss` takes advantages (completions, tokens): it adds a dimension to (completions,) only.
Of TRL's losses `dapo` is this project's `policy_loss`: it divides by the tokens of the optimiser step, as long as
steps_per_generation is gradient_accumulation_steps (its default). `bnpo`, `dr_grpo`, `grpo` divide by something else.
`vespo`, `luspo`, sequence-level ratios and off_policy_mask_threshold take a completion as a whole: leave them.
TRL forces no answer. A completion that is cut inside its thought has none and keeps its reward, so let few be cut.
"""

import tempfile
from collections.abc import Callable, Sequence
from functools import partial

import numpy as np
import torch
from accelerate.utils import gather_object
from datasets import Dataset
from transformers import PrinterCallback
from trl import GRPOConfig, GRPOTrainer

import mrt_pipeline as mrt

ON_A_CPU = {
    "use_cpu": True,
    "bf16": False,
    "gradient_checkpointing": False,
    "save_strategy": "no",
    "report_to": "none",
    "disable_tqdm": True,
}
Segment = Callable[[list[int]], tuple[np.ndarray, bool]]
"""Token ids of a completion -> boundaries of its episodes, and whether an answer follows the thought.

The boundaries are numbers of thinking tokens, the first is 0 and the last the length of the thought.
"""
Prove = Callable[..., Sequence[np.ndarray]]
"""prove(rows, prompts, completions, boundaries) -> J at the boundaries of each completion, (k + 1,) each.

rows: of the data set. prompts, completions: token ids. Called without gradients, while the model is in training mode.
"""


class ProgressTrainer(GRPOTrainer):
    """GRPO with an advantage a token.

    rule: called as `credit.mrt_online` is; bind its parameters with functools.partial.
    """

    def __init__(self, *args, segment: Segment, prove: Prove, rule: Callable = mrt.credit.mrt_online, **kwargs):
        super().__init__(*args, **kwargs)
        if self.scale_rewards != "none" or self.multi_objective_aggregation != "sum_then_normalize":
            raise ValueError('the rule centres and scales: set scale_rewards="none" and leave rewards summed')
        if self.mask_truncated_completions:
            raise ValueError("mask_truncated_completions hides the completions that it masks from segment and prove")
        self.segment, self.prove, self.rule = segment, prove, rule

    def _calculate_rewards(self, *args, **kwargs):
        found = super()._calculate_rewards(*args, **kwargs)
        if found.isnan().all(dim=1).any():
            raise ValueError("a completion has no reward")
        self._rewards = (found * self.reward_weights.to(found.device)).nansum(dim=1).cpu().numpy()
        return found

    def _generate_and_score_completions(self, inputs):
        batch = super()._generate_and_score_completions(inputs)
        prompts = _rows(batch["prompt_ids"], batch["prompt_mask"])
        completions = _rows(batch["completion_ids"], batch["completion_mask"])
        boundaries, answered = zip(*map(self.segment, completions), strict=True)
        with torch.no_grad():
            success = self.prove(inputs, prompts, completions, boundaries)
        # Groups and scale need the completions of all processes; of the credit, each keeps that of its own.
        found = self._credit(*(gather_object(list(values)) for values in (boundaries, success, answered)))
        first = self.accelerator.process_index * len(inputs)
        advantages = torch.zeros_like(batch["completion_ids"], dtype=torch.float32)
        for row, ids, i in zip(advantages, completions, range(first, first + len(inputs)), strict=True):
            values = np.concatenate([found.thought[i], [found.stop[i]], np.full(len(ids), found.answer[i])])
            row[: len(ids)] = torch.from_numpy(values[: len(ids)])
        batch["advantages"] = advantages
        return batch

    def _credit(self, boundaries: list, success: list, answered: list) -> mrt.credit.Credit:
        training = self.model.training
        groups = np.arange(len(boundaries)) // (self.num_generations if training else self.num_generations_eval)
        curves = zip(boundaries, success, strict=True)
        regrets = [mrt.regret(*curve, self.max_completion_length) for curve in curves]
        self._metrics["train" if training else "eval"]["regret"].append(float(np.mean(regrets)))
        return self.rule(self._rewards, groups, boundaries, success, answered=answered)


def _rows(ids: torch.Tensor, mask: torch.Tensor) -> list[list[int]]:
    """Token ids without their padding."""
    return [row[kept.bool()].tolist() for row, kept in zip(ids, mask, strict=True)]


def think_segment(template) -> Segment:
    """Episodes of this project's open-ended thinking. A completion that ends inside its thought has no answer."""

    def segment(ids):
        stop = next((i for i, token in enumerate(ids) if token in template.thinking_stops), len(ids))
        return template.boundaries(ids[:stop], ()), template.close[0] in ids[stop : stop + 1]

    return segment


def exact_answers(policy, task, problems) -> Prove:
    """J as the probability of the accepted answers when the policy is stopped and has to answer.

    Where answers cannot be listed: sample some after prompt, thought and stop phrase, and take their mean reward.
    """
    actor = mrt.Actor.of(policy, task, mrt.RolloutParams())

    def prove(rows, prompts, completions, boundaries):
        queries = [
            mrt.Query(problems[row["problem_id"]], np.array(prompt), np.array(ids[: cuts[-1]], dtype=np.int64), cuts)
            for row, prompt, ids, cuts in zip(rows, prompts, completions, boundaries, strict=True)
        ]
        return [found.mean for found in mrt.ExactProver().success(actor, queries)]

    return prove


def toy(n_problems: int = 4, warm_steps: int = 400):
    """A task, a few problems of it by id, and a tiny policy that has seen imperfect searches for their answers."""
    task = mrt.Countdown(n_train=n_problems, n_validation=1, n_test=1, max_attempts=4)
    problems = [problem for problem in task.problems() if problem.split == "train"]
    policy = mrt.TinyPolicy(hidden_size=32, n_layers=2, n_heads=2, intermediate_size=64, max_length=128).build(task)
    settings = mrt.LearnerParams(learning_rate=1e-2, optimizer="muon", muon_learning_rate=0.05, schedule="cosine")
    mrt.warm_start(policy, task, problems, settings, warm_steps, batch_size=16, seed=0, log=lambda metrics, step: None)
    return task, {problem.problem_id: problem for problem in problems}, policy


def toy_arguments(task, problems, policy) -> dict:
    """What the toy gives to TRL's trainer: model, tokenizer, reward and data set."""
    tokenizer, eos = policy.tokenizer, policy.tokenizer.eos_token

    def reward(completion_ids, problem_id, **_):
        texts = [tokenizer.decode(ids) for ids in completion_ids]
        answers = [text.partition("</think>")[2].removesuffix(eos) if text.endswith(eos) else "" for text in texts]
        return [task.grade(problems[name], answer).reward for name, answer in zip(problem_id, answers, strict=True)]

    questions = [[{"role": "user", "content": problem.question}] for problem in problems.values()]
    prompts = [tokenizer.apply_chat_template(q, tokenize=False, add_generation_prompt=True) for q in questions]
    data = Dataset.from_dict({"prompt": prompts, "problem_id": list(problems)})
    return {"model": policy.model, "processing_class": tokenizer, "reward_funcs": reward, "train_dataset": data}


def main(steps: int = 80, warm_steps: int = 400) -> None:
    """Train the toy for some steps, and print how reward and regret change."""
    task, problems, policy = toy(warm_steps=warm_steps)
    with tempfile.TemporaryDirectory() as folder:
        config = GRPOConfig(
            folder,
            max_steps=steps,
            per_device_train_batch_size=64,
            num_generations=16,
            max_completion_length=96,
            learning_rate=1e-3,
            lr_scheduler_type="constant",
            loss_type="dapo",
            epsilon=0.2,
            epsilon_high=0.28,
            scale_rewards="none",
            logging_steps=max(steps // 8, 1),
            **ON_A_CPU,
        )
        trainer = ProgressTrainer(
            **toy_arguments(task, problems, policy),
            args=config,
            segment=think_segment(policy.template),
            prove=exact_answers(policy, task, problems),
            rule=partial(mrt.credit.mrt_online, alpha=0.2),
        )
        trainer.remove_callback(PrinterCallback)
        trainer.train()
    for row in trainer.state.log_history:
        if "reward" in row:
            print(f"step {row['step']:3d}   reward {row['reward']:.2f}   regret {row['regret']:.2f}")


if __name__ == "__main__":
    main()
