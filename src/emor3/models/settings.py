"""Settings of the start model, and of what of it learns."""

from typing import Literal, Self

from pydantic import Field, model_validator

from emor3.errors import UserError
from emor3.settings import Block


class LoraBlock(Block):
    """Train low-rank adapters instead of all weights (peft)."""

    r: int = Field(16, ge=1)
    """Rank of the adapters."""
    alpha: int = Field(32, ge=1)
    """Adapters are scaled by alpha / r."""
    dropout: float = Field(0.0, ge=0, lt=1)
    """Share of an adapter's inputs that is dropped in training."""
    target_modules: str | list[str] = "all-linear"
    """Names of the layers that get adapters, or `all-linear`."""


Part = Literal["vision", "projector"]
"""What stands before the language model: the vision tower, and the projector, which carries its output over."""


class ModelBlock(Block):
    """The start model: a folder, a hub name, or "embedded"."""

    path: str
    """A folder, a hub name such as org/model, or `embedded`, the tiny one of the package."""
    dtype: Literal["auto", "float32", "bfloat16", "float16"] = "auto"
    """Precision of weights that do not learn: the base under adapters and the KL reference. `auto` is the checkpoint's.

    Weights that learn are float32 in any case; `grpo.bf16` computes with them in bfloat16.
    """
    freeze: list[Part] = Field(default_factory=list)
    """Parts that stay as they are, with LoRA too; the language model always learns."""
    attention: Literal["eager", "sdpa", "flex_attention"] | None = None
    """How tokens attend to each other; None is the checkpoint's way, mostly `sdpa`.

    `flex_attention` is for rows of several completions (gradient checkpointing, shards), whose mask then costs nothing
    where it hides; all else is `sdpa`. It needs a GPU, and was not run on one yet.
    """
    max_pixels: int | None = Field(None, ge=1024)
    """Larger images are scaled down to this area, if the processor sizes by area; None keeps the checkpoint's limit.

    A processor that cuts square tiles cuts no more than fit in it: 262144 is one tile of 512 x 512 pixels.
    """
    lora: LoraBlock | None = None
    """Train adapters of this form; None trains all weights."""
    quantize: Literal["4bit"] | None = None
    """QLoRA: hold the start model's linear layers in 4 bits (bitsandbytes' nf4) and train adapters on them."""

    @model_validator(mode="after")
    def _quantizes_only_under_adapters(self) -> Self:
        if self.quantize is not None and self.lora is None:
            raise UserError("model.quantize: 4-bit weights cannot be trained themselves, add model.lora={r: 16}")
        return self
