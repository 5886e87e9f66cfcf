"""Recipes: what a training run does, as YAML a person edits. Unknown keys are refused with the nearest known one."""

from pathlib import Path
from typing import Any, Literal, Self
from urllib.parse import urlsplit

from pydantic import Field, ValidationError, field_validator, model_validator

from emor3.blocks import Block, describe_fault
from emor3.errors import UserError
from emor3.method.rewards import RewardSettings
from emor3.method.thinking import Thinking
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
    "do_eval": "nothing: use `emor3 evaluate`",
    "eval_strategy": "nothing: use `emor3 evaluate`",
    "resume_from_checkpoint": "the --resume flag",
    "save_only_model": "nothing: a resumed run needs the optimizer",
    "ignore_data_skip": "nothing: a resumed run goes on with the samples that are left",
    "multi_objective_aggregation": "nothing: advantages are those of the weighted sum, the reward that is recorded",
    "sync_ref_model": "nothing: the KL reference is the start model, also in a resumed run",
}
"""TRL settings that emor3 decides, and what to set instead."""


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
    max_pixels: int | None = Field(None, ge=1024)
    """Larger images are scaled down to this area if the processor sizes them by area; None keeps the checkpoint's own limit."""
    lora: LoraBlock | None = None
    """Train adapters of this form; None trains all weights."""
    quantize: Literal["4bit"] | None = None
    """QLoRA: hold the start model's linear layers in 4 bits (bitsandbytes' nf4) and train adapters on them."""

    @model_validator(mode="after")
    def _quantizes_only_under_adapters(self) -> Self:
        if self.quantize is not None and self.lora is None:
            raise UserError("model.quantize: 4-bit weights cannot be trained themselves, add model.lora={r: 16}")
        return self


class DataBlock(Block):
    """What to train on: a folder with `metadata.jsonl`, or `embedded:NAME`; a list of them mixes their samples."""

    train: str | list[str] = Field(min_length=1)
    """Folder with `metadata.jsonl`, or `embedded:NAME`; several as a list."""
    split: str | None = "train"
    """Split to train on; None takes all rows."""
    labels: str | list[str] | None = None
    """Label set: a built-in name, a YAML file, a list, or None for that of the data, for each folder its own."""
    label_field: str = "label"
    """Field of a row that holds the label."""
    limit: int | None = Field(None, ge=1)
    """Train on this many samples, drawn with the seed."""

    @property
    def folders(self) -> list[str]:
        """The folders as a list, also if there is one."""
        return [self.train] if isinstance(self.train, str) else self.train


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


KEY_VARIABLE = "EMOR3_ENDPOINT_KEY"
"""The environment variable that holds the endpoint's key: recipes are saved and shared, so no key may stand there."""


KEY_HINT = f"set the environment variable {KEY_VARIABLE} instead"


class EndpointBlock(Block):
    """An OpenAI-compatible chat server that judges."""

    base_url: str
    """Up to and without `/chat/completions`, as in http://localhost:8000/v1."""
    model: str
    """The model's name on the server."""
    timeout: float = Field(60.0, gt=0, le=86_400)
    """Seconds for one try, from its first to its last byte, and the longest wait that a server may ask for."""
    retries: int = Field(4, ge=0)
    """Further tries after a time-out, a lost connection, a rate limit or a server's error, each after a longer wait."""
    concurrency: int = Field(8, ge=1, le=1024)
    """Requests under way at once, on each process."""
    max_tokens: int = Field(16, ge=1)
    """Tokens at which a reply is cut."""
    top_logprobs: int = Field(0, ge=0, le=20)
    """Ask for the probabilities of so many first tokens, on servers that give them; 0 reads the reply's text."""
    max_pixels: int = Field(401_408, ge=1024)
    """Larger images are sent scaled down to this area."""
    cache: str | None = None
    """Folder that keeps replies for later runs; None keeps them for this run only."""
    max_error_share: float = Field(0.1, ge=0, lt=1)
    """A run stops once the judge has failed on more than this share of 100 questions in a row."""

    @model_validator(mode="before")
    @classmethod
    def _names_no_key(cls, given: Any) -> Any:
        """A UserError of its own, because the general one repeats what it found, and messages end up in logs."""
        secret = ("key", "password", "secret", "authorization")
        for name in map(str, given if isinstance(given, dict) else ()):
            if any(word in name.lower() for word in secret):
                raise UserError(f"judge.endpoint.{name}: no key in a recipe, {KEY_HINT}")
        return given

    @field_validator("base_url")
    @classmethod
    def _is_an_address_without_key(cls, base_url: str) -> str:
        try:
            url = urlsplit(base_url)
            usable = url.scheme in ("http", "https") and url.hostname and (url.port is None or url.port > 0)
        except ValueError:
            usable = False
        if not usable:
            raise UserError("judge.endpoint.base_url must be a web address such as http://localhost:8000/v1")
        if "@" in url.netloc or url.query or url.fragment:
            raise UserError(f"judge.endpoint.base_url: no user, query or key in it, {KEY_HINT}")
        return base_url.rstrip("/")


class JudgeBlock(Block):
    """Who judges, and how it is asked: by candidate probabilities (score) or by short replies (generate)."""

    model: Literal["policy", "reference", "ema", "endpoint"] = "policy"
    """The current policy (the paper), the start model as it was, a moving average of the policy, or a chat server."""
    ema_decay: float = Field(default=0.98, ge=0, le=1)
    """Share of its own weights that the moving average keeps at each step."""
    calibration: int = Field(default=32, ge=0)
    """Training images on which the judge is tried before the first step; 0 leaves that out."""
    backend: Literal["score", "generate"] = "score"
    """Ask by the probabilities of the possible replies (score), or by short replies (generate)."""
    batch_size: int = Field(default=256, ge=1)
    """Questions that the judge is asked at once, on each process."""
    endpoint: EndpointBlock | None = None
    """The chat server, for `model: endpoint`."""

    @model_validator(mode="after")
    def _has_its_endpoint(self) -> Self:
        if (self.model == "endpoint") != (self.endpoint is not None):
            raise UserError("judge.model endpoint and the block judge.endpoint go together: give both or neither")
        return self


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


def load_recipe(path: str | Path, overrides: list[str] | tuple[str, ...] = ()) -> Recipe:
    """Recipe of a YAML file with `a.b=value` overrides (values are YAML). Raises UserError for what it cannot use."""
    content = read_yaml(Path(path), "recipe")
    if not isinstance(content, dict):
        raise UserError(f"the recipe {path} must be a mapping of settings, see recipes/quickstart.yaml")
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
