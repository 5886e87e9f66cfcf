"""A checkpoint under evaluation and the fixed judge of its reasoning, in transformers or in vLLM."""

import hashlib
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from huggingface_hub import try_to_load_from_cache
from pydantic import ValidationError
from transformers import PreTrainedModel, ProcessorMixin

from emor3.errors import UserError
from emor3.evaluation.adapters import holds_adapters, load_merged
from emor3.evaluation.settings import EngineName, EvaluationSettings
from emor3.judges.local import ScoreJudge
from emor3.judges.vllm import EngineJudge
from emor3.method.thinking import Thinking
from emor3.method.types import Judge
from emor3.models.checkpoints import load, resolve_checkpoint, save
from emor3.models.engines.batches import Engine
from emor3.models.engines.local import LocalEngine
from emor3.models.engines.vllm import VllmEngine, check_installed
from emor3.runs.directory import FINAL, read_recipe, run_of
from emor3.runs.recipe import Recipe
from emor3.scoring.own import OwnJudge, source_digest
from emor3.settings import describe_fault
from emor3.storage.files import file_digest

TOLD = (".json", ".jinja", ".safetensors")
"""Suffixes of the files that make a checkpoint what it is."""


@dataclass(frozen=True)
class Candidate:
    """A checkpoint under evaluation with the fixed judge of its reasoning, both loaded."""

    path: str
    engine: Engine
    judge_path: str
    """Its checkpoint, or the class of a judge of one's own, as records name it."""
    judge: Judge
    recipe: Recipe | None
    """Recipe of the run that the checkpoint lies in."""

    @property
    def thinking(self) -> Thinking:
        """The way of thinking it was trained in."""
        return "steps" if self.recipe is None else self.recipe.thinking

    @property
    def template(self) -> str:
        """The prompt template it was trained with."""
        return "steps" if self.recipe is None else self.recipe.prompt_template

    @property
    def model(self) -> PreTrainedModel:
        """Its weights in this process. Raises UserError if another engine holds them."""
        if not isinstance(self.engine, LocalEngine):
            raise UserError(
                f"{self.path} is loaded in {self.engine.name}, which holds its weights: leave out the engine"
            )
        return self.engine.model

    @property
    def processor(self) -> ProcessorMixin:
        """The checkpoint's processor."""
        return self.engine.processor

    @property
    def sums(self) -> dict[str, str]:
        """What tells checkpoint and judge, by their names, from others under these names."""
        own = source_digest(self.judge.judge) or "unknown" if isinstance(self.judge, OwnJudge) else None
        return {self.path: checkpoint_sum(self.path), self.judge_path: own or checkpoint_sum(self.judge_path)}

    def settings(self, **given: Any) -> EvaluationSettings:
        """Settings of an evaluation or a prediction by name, with its prompt, its way of thinking and its engine.

        Raises UserError for settings that cannot be used.
        """
        own = {"template": given.pop("template", None) or self.template, "thinking": self.thinking}
        try:
            settings = EvaluationSettings.model_validate({"engine": self.engine.name} | own | given)
        except ValidationError as error:
            raise UserError(f"settings of the evaluation: {describe_fault(error, EvaluationSettings)}") from None
        if settings.engine != self.engine.name:
            raise UserError(f"{self.path} is loaded in {self.engine.name}: name engine {settings.engine} to load it")
        return settings


def load_candidate(
    path: str | Path, judge: str | Judge | None = None, engine: EngineName = "transformers"
) -> Candidate:
    """Load a policy with the judge of its reasoning: a checkpoint (adapters with their base), or a run's final one.

    The judge is a checkpoint, or one of your own (`emor3.scoring.own`), and stays the same before and after training:
    by default the model the run started from, and for a checkpoint outside a run the checkpoint itself.
    Raises UserError if either cannot be loaded.
    """
    path = str(path)
    run = run_of(Path(path))
    recipe = None if run is None else read_recipe(run)
    source = str(run / FINAL) if run is not None and run.samefile(path) else path
    loaders = {"transformers": _load_local, "vllm": _load_vllm}
    if judge is None or isinstance(judge, str):
        judge_path = judge or (recipe.model.path if recipe else source)
        return Candidate(source, *loaders[engine](source, judge_path), recipe)
    return Candidate(source, *loaders[engine](source, OwnJudge(judge)), recipe)


def _load_local(source: str, judge: str | OwnJudge) -> tuple[Engine, str, Judge]:
    policy = load_any(source)
    if isinstance(judge, OwnJudge):
        return LocalEngine(*policy), judge.name, judge
    asked = policy if judge == source else load_any(judge)
    return LocalEngine(*policy), judge, ScoreJudge(*asked)


def _load_vllm(source: str, judge: str | OwnJudge) -> tuple[Engine, str, Judge]:
    check_installed()
    if isinstance(judge, OwnJudge):
        return _serve(source, 1), judge.name, judge
    sharing = len({source, judge})
    policy = _serve(source, sharing)
    return policy, judge, EngineJudge(policy if judge == source else _serve(judge, sharing))


def _serve(path: str, sharing: int) -> VllmEngine:
    """A checkpoint in vLLM; adapters are merged into their base first, in a folder that goes with the engine."""
    if not holds_adapters(Path(path)):
        return VllmEngine(resolve_checkpoint(path), sharing=sharing)
    merged = TemporaryDirectory()
    save(*load_any(path), merged.name)
    return VllmEngine(merged.name, sharing=sharing, kept=merged)


def load_any(path: str) -> tuple[PreTrainedModel, ProcessorMixin]:
    """Model and processor of a checkpoint, its adapters merged if it holds only these."""
    if not holds_adapters(Path(path)):
        return load(path)
    run = run_of(Path(path))
    return load_merged(Path(path), run, None if run is None else read_recipe(run))


def checkpoint_sum(path: str) -> str:
    """What tells a checkpoint from another one under the same name: SHA-256 of its files, or the commit of the hub."""
    folder = Path(path if holds_adapters(Path(path)) else resolve_checkpoint(path))
    if not folder.is_dir():
        cached = try_to_load_from_cache(path, "config.json")
        return f"commit {Path(cached).parent.name}" if isinstance(cached, str) else "unknown"
    whole = hashlib.sha256()
    for file in sorted(file for file in folder.iterdir() if file.suffix in TOLD):
        whole.update(f"{file.name} {file_digest(file).hex()}\n".encode())
    return whole.hexdigest()
