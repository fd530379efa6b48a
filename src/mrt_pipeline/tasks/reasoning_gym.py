"""Problems from reasoning-gym's generators, as many as wanted.

Only the generators are used: its scorers evaluate what a model wrote. Answers are compared as those of
`math_problems.py`, so this is for generators whose answer is a number, an expression or a word.
"""

import random
from typing import Any, Literal

from pydantic import Field

from mrt_pipeline.errors import InputError
from mrt_pipeline.registry import PositiveInt
from mrt_pipeline.tasks.base import Problem
from mrt_pipeline.tasks.math_grader import MathAnswers
from mrt_pipeline.tasks.math_problems import normalize_question

_PLAIN = (int, float, str)  # what is kept of the metadata
_MOST_DRAWN = 4  # times the wanted number, since generators repeat themselves


class ReasoningGym(MathAnswers):
    """The task; see the module. No question is in two of its splits."""

    name: Literal["reasoning_gym"] = "reasoning_gym"
    generator: str = Field(default="chain_sum", description="name of a reasoning-gym dataset")
    config: dict[str, Any] = Field(
        default={}, description="its settings where they differ from the generator's own: +task.config.min_terms=3"
    )
    n_train: PositiveInt = Field(default=4_000, description="training problems")
    n_test: PositiveInt = Field(default=600, description="held-out problems")

    def problems(self) -> list[Problem]:
        """All problems: train, validation, test. Raises InputError for a generator that cannot make them."""
        sizes = {"train": self.n_train, "validation": self.n_validation, "test": self.n_test}
        wanted = sum(sizes.values())
        try:
            from reasoning_gym import create_dataset

            drawn = create_dataset(self.generator, size=_MOST_DRAWN * wanted, seed=self.seed, **self.config)
        except ImportError as error:
            raise InputError("task=reasoning_gym needs reasoning-gym: pip install reasoning-gym") from error
        except (ValueError, TypeError, AssertionError) as error:
            raise InputError(f"reasoning-gym cannot make '{self.generator}' with {self.config}: {error}") from error
        distinct: dict[str, dict] = {}
        for entry in drawn:
            distinct.setdefault(normalize_question(entry["question"]), entry)
            if len(distinct) == wanted:
                break
        else:
            raise InputError(
                f"reasoning-gym's '{self.generator}' has only {len(distinct)} distinct problems with {self.config}, "
                f"{wanted} were asked for: lower task.n_train, or widen task.config"
            )
        splits = [split for split, n in sizes.items() for _ in range(n)]
        random.Random(self.seed).shuffle(splits)  # rare kinds of problems come early, and belong to every split alike
        problems = [
            Problem(
                problem_id=f"{self.generator}-{n}",
                source=self.generator,
                split=split,
                question=entry["question"],
                answers=(str(entry["answer"]),),
                metadata={k: v for k, v in entry["metadata"].get("difficulty", {}).items() if isinstance(v, _PLAIN)},
            )
            for n, (split, entry) in enumerate(zip(splits, distinct.values(), strict=True))
        ]
        return [problem for split in sizes for problem in problems if problem.split == split]
