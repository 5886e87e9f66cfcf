"""Recipes: what a training run does, as YAML a person edits. Unknown keys are refused with the nearest known one."""

from pathlib import Path
from typing import Any, Literal, Self

from pydantic import Field, ValidationError, field_validator, model_validator

from emor3.data.settings import DataBlock
from emor3.errors import UserError
from emor3.heldout.settings import HeldOutBlock
from emor3.judges.settings import JudgeBlock
from emor3.method.rewards import RewardSettings, check_thinking
from emor3.method.thinking import Thinking
from emor3.method.types import Aspect
from emor3.models.settings import ModelBlock
from emor3.settings import Block, describe_fault
from emor3.storage.shipped import check_kind, find_recipe
from emor3.storage.yaml_text import parse_yaml, read_yaml

MAX_GENERATIONS = 1_024
"""Largest group: its completions are generated, judged and held together."""

OWNED = {
    "output_dir": "output_dir",
    "seed": "seed",
    "data_seed": "seed",
    "reward_weights": "reward",
    "generation_kwargs": "nothing: vision placeholders are suppressed there",
    "shuffle_dataset": "seed: the order of prompts is drawn from it, so that a resumed run sees the same",
    "remove_unused_columns": "nothing: the judge needs the sample ids",
    "disable_tqdm": "nothing: emor3 shows its own progress",
    "log_multimodal": "nothing: `emor3 report` shows images, and ranks without any would miss the call that logs them",
    "trust_remote_code": "nothing: code from checkpoints is never run",
    "model_init_kwargs": "model",
    "save_strategy": "grpo.save_steps",
    "logging_strategy": "nothing: every step is recorded",
    "logging_steps": "nothing: every step is recorded",
    "do_eval": "evaluation.every",
    "eval_strategy": "evaluation.every",
    "resume_from_checkpoint": "the --resume flag",
    "save_only_model": "nothing: a resumed run needs the optimizer",
    "ignore_data_skip": "nothing: a resumed run goes on with the samples that are left",
    "multi_objective_aggregation": "reward.advantages: separate is normalize_then_sum",
    "sync_ref_model": "nothing: the KL reference is the start model, also in a resumed run",
}
"""TRL settings that emor3 decides, and what to set instead."""


class ColdStartBlock(Block):
    """Cold-Start-Emo: a short supervised stage on image -> boxed label before reinforcement learning.

    Run long and without a `grpo` stage it is the supervised baseline.
    """

    samples: int | None = Field(64, ge=1)
    """How many samples to learn from, drawn with the seed; None takes all."""
    steps: int = Field(20, ge=1)
    """Optimizer steps of the stage."""
    batch_size: int = Field(8, ge=1)
    """Samples of a step on each process."""
    learning_rate: float = Field(1e-5, gt=0)
    """Learning rate of the stage."""
    targets: Literal["label", "reasoning"] = "label"
    """Learn the boxed label alone, or the whole `reasoning` text of each sample."""
    template: str | None = None
    """Prompt template; None is `direct` for labels and the recipe's own for reasoning."""


class Recipe(Block):
    """One training run."""

    seed: int = Field(0, ge=0, lt=2**32)
    """Seed of everything that is drawn at random."""
    output_dir: str
    """The run directory."""
    model: ModelBlock
    """The start model and what of it learns."""
    data: DataBlock
    """What to train on."""
    thinking: Thinking = "steps"
    """How completions think: Structured Emotional Thinking, or as baselines do, freely or not at all."""
    template: str | None = None
    """Prompt template, a file; None is the shipped one for the way of thinking."""
    cold_start: ColdStartBlock | None = None
    """A supervised stage before reinforcement learning; None leaves it out."""
    reward: RewardSettings = Field(default_factory=RewardSettings)
    """Weights and switches of the reward."""
    judge: JudgeBlock = Field(default_factory=JudgeBlock)
    """Who judges the reasoning, and how it is asked."""
    evaluation: HeldOutBlock | None = None
    """Evaluation on held-out samples during training, of which the best policy is kept; None leaves it out."""
    dynamic_sampling: int = Field(0, ge=0)
    """DAPO: how often a step may replace groups of equal rewards by groups on other prompts, after reflection."""
    grpo: dict[str, Any] | None = Field(default_factory=dict)
    """Settings of TRL's GRPOConfig, by its names; null leaves out reinforcement learning."""

    @property
    def prompt_template(self) -> str:
        """The prompt template: a file's path or a shipped one's name."""
        return self.template or self.thinking

    @field_validator("grpo")
    @classmethod
    def _only_settings_of_trl(cls, grpo: dict[str, Any] | None) -> dict[str, Any] | None:
        if grpo is None:
            return None
        for key in grpo:
            if key in OWNED:
                raise ValueError(f"{key!r} is set by emor3; use {OWNED[key]}")
        generations = grpo.get("num_generations", 2)
        if not isinstance(generations, int) or generations < 2:
            raise ValueError(
                "num_generations (G) must be a whole number of at least 2, since an advantage compares the completions "
                f"of a group; found {generations!r}"
            )
        if generations > MAX_GENERATIONS:
            raise ValueError(
                f"num_generations (G) must be at most {MAX_GENERATIONS:,}, since a group is held whole; found "
                f"{generations:,}"
            )
        return grpo

    @model_validator(mode="after")
    def _asks_whom_it_names(self) -> Self:
        if self.judge.coherence is not None and Aspect.COHERENCE not in self.reward.aspects:
            raise UserError("judge.coherence names who reads the reasoning, and no reward asks that: leave it out")
        return self

    @model_validator(mode="after")
    def _pays_what_it_asks_for(self) -> Self:
        check_thinking(self.reward, self.thinking)
        return self


def load_recipe(path: str | Path, overrides: list[str] | tuple[str, ...] = ()) -> Recipe:
    """Recipe of a YAML file, or of a shipped one by its name, with `a.b=value` overrides (values are YAML).

    Raises UserError for what it cannot use.
    """
    content = read_yaml(find_recipe(path), "recipe")
    if not isinstance(content, dict):
        raise UserError(f"the recipe {path} must be a mapping of settings, see `emor3 recipes quickstart`")
    check_kind(content, "recipe", path)
    return build_recipe(content, overrides, str(path))


def build_recipe(content: dict[str, Any], overrides: list[str] | tuple[str, ...], path: str) -> Recipe:
    """Recipe of settings with overrides; `path` names their source in messages. Raises UserError as load_recipe."""
    for override in overrides:
        _apply(content, override)
    try:
        recipe = Recipe.model_validate(content)
    except ValidationError as error:
        raise UserError(f"{path}: {describe_fault(error, Recipe)}") from None
    except UserError as error:
        raise UserError(f"{path}: {error}") from None
    if recipe.grpo is None and recipe.cold_start is None:
        raise UserError(f"{path}: nothing to train: give a grpo block, a cold_start block, or both")
    return recipe


def _apply(content: dict[str, Any], override: str) -> None:
    key, separator, value = override.partition("=")
    if not separator or not key:
        raise UserError(f"--set takes KEY=VALUE, as in grpo.beta=0.02; found {override!r}")
    *parents, last = key.split(".")
    for parent in parents:
        if content.get(parent) is None:
            content[parent] = {}
        content = content[parent]
        if not isinstance(content, dict):
            raise UserError(f"--set {override}: {parent!r} is a single setting, it has no parts")
    content[last] = parse_yaml(value, f"--set {override}: the value")
