"""Parameters of an audit."""

from typing import Annotated, Literal

from pydantic import Field

from mrt_pipeline.registry import Params, PositiveFloat, PositiveInt


class AuditParams(Params):
    """Auditing traces that exist; see auditing/audit.py. Nothing else depends on it."""

    traces: str | None = Field(
        default=None, description="a .jsonl, .json, .parquet or .csv file, a folder of such, or a dataset on the hub"
    )
    form: Literal["auto", "records", "responses", "lm_eval", "trl"] = Field(
        default="auto", description="the format of its records; auto: found from them"
    )
    columns: dict[str, str] = Field(
        default={}, description="columns that are not called as usual: question, gold, thought, answer, finished"
    )
    tokenizer: str | None = Field(
        default=None, description="folder or hub id of the tokenizer that counts tokens; null: words are counted"
    )
    grader: str | None = Field(
        default=None,
        description="your own <module>:<function>, as in task.grader; null: answers are compared as mathematics",
    )
    grading_seconds: PositiveFloat = Field(default=5.0, description="deadline for comparing one answer")
    n_resamples: PositiveInt = Field(default=2000, description="bootstrap resamples over problems")
    confidence: Annotated[float, Field(gt=0, lt=1)] = Field(default=0.95, description="level of the intervals")
    seed: int = Field(default=0, description="of the resampling")
