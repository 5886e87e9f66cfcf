"""Settings of the evaluation on held-out samples during training: the block `evaluation` of a recipe."""

from typing import Literal

from pydantic import Field

from emor3.settings import Block

Metric = Literal["accuracy", "format", "perception"]
"""What can be measured without a judge; perception needs drawn pictures, whose factors are known."""


class HeldOutBlock(Block):
    """Evaluation on held-out samples while the policy learns, greedily, before the first step and at the end too."""

    every: int = Field(25, ge=1)
    """Optimizer steps between two evaluations."""
    samples: int = Field(64, ge=1)
    """How many held-out samples, the same ones every time; all if there are fewer."""
    metric: Metric = "accuracy"
    """The policy with the highest value of it is kept in `best/`; perception: step 1 names exactly what was drawn."""
    data: str | None = None
    """Folder or `embedded:NAME`, of which val rows, else test rows, else all are taken; None takes val or test rows of
    `data.train`, and if there are none a slice of its training rows, drawn with the seed and never trained on."""
