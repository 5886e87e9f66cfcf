"""The one block of settings of an evaluation: for `evaluate`, `predict`, the quickstart and plans of a reproduction."""

from typing import Any, Literal

from pydantic import Field, field_validator, model_validator

from emor3.method.thinking import Thinking
from emor3.settings import MOST, Block, low_temperature, without_former

EngineName = Literal["transformers", "vllm"]
FORMER = {"reflective": False}
"""Settings that helped in no world and are gone (docs/log.md), by the value at which they did nothing."""


class EvaluationSettings(Block):
    """What is evaluated and how completions are made."""

    split: str | None = "test"
    """Split of every data set; None takes all."""
    labels: str | list[str] | None = None
    """Label set: a built-in name, a YAML file or labels; None is that of the data."""
    label_field: str = "label"
    """Field of a row that holds the label."""
    limit: int | None = Field(default=None, ge=1)
    """Evaluate that many samples of each data set, the same ones every time; None takes all."""
    temperature: float = Field(default=0.0, ge=0, le=1e3)
    """0 decodes the judged completion greedily, above it samples."""
    samples: int = Field(default=0, ge=0)
    """Answers to sample of each image at temperature 1 beside the judged one, for distributions and calibration."""
    blank: bool = False
    """Show a grey picture in place of every image, as a control: what is right then was not seen."""
    seed: int = Field(default=0, ge=0, le=MOST)
    """Seed of all sampling; a plan takes the cell's."""
    thinking: Thinking = "steps"
    """How completions are parsed; a plan takes the method's."""
    template: str = "steps"
    """Prompt template, shipped or a file; a plan takes the method's."""
    max_new_tokens: int = Field(default=256, ge=1)
    """Tokens at which a completion is cut."""
    batch_size: int = Field(default=64, ge=1)
    """Images in a batch, at most: large ones are fewer, and vLLM makes batches of its own."""
    engine: EngineName = "transformers"
    """What makes completions and asks the judge: transformers, or vLLM in this process."""

    @model_validator(mode="before")
    @classmethod
    def _without_former_settings(cls, given: Any) -> Any:
        return without_former(given, FORMER, "evaluation")

    @field_validator("temperature")
    @classmethod
    def _can_divide_logits(cls, value: float) -> float:
        if low := low_temperature(value):
            raise ValueError(low)
        return value
