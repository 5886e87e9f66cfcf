"""A checkpoint under evaluation and the fixed judge of its reasoning, in transformers or in vLLM."""

import hashlib
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory

from huggingface_hub import try_to_load_from_cache
from transformers import PreTrainedModel, ProcessorMixin

from emor3.evaluation.adapters import holds_adapters, load_merged
from emor3.evaluation.settings import EngineName
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

TOLD = (".json", ".jinja", ".safetensors")
"""Suffixes of the files that make a checkpoint what it is."""


@dataclass(frozen=True)
class Candidate:
    """A checkpoint under evaluation with the fixed judge of its reasoning, both loaded."""

    path: str
    engine: Engine
    judge_path: str
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
    def processor(self) -> ProcessorMixin:
        """The checkpoint's processor."""
        return self.engine.processor


def load_candidate(path: str, judge_path: str | None = None, engine: EngineName = "transformers") -> Candidate:
    """Load a checkpoint (adapters with their base), or the final one of a run directory, and its judge.

    The judge stays the same before and after training: by default the model the run started from, and for a checkpoint
    outside a run the checkpoint itself. Raises UserError if either cannot be loaded.
    """
    run = run_of(Path(path))
    recipe = None if run is None else read_recipe(run)
    source = str(run / FINAL) if run is not None and run.samefile(path) else path
    judge_path = judge_path or (recipe.model.path if recipe else source)
    loaders = {"transformers": _load_local, "vllm": _load_vllm}
    return Candidate(source, *loaders[engine](source, judge_path), recipe)


def _load_local(source: str, judge_path: str) -> tuple[Engine, str, Judge]:
    policy = load_any(source)
    asked = policy if judge_path == source else load_any(judge_path)
    return LocalEngine(*policy), judge_path, ScoreJudge(*asked)


def _load_vllm(source: str, judge_path: str) -> tuple[Engine, str, Judge]:
    check_installed()
    sharing = len({source, judge_path})
    policy = _serve(source, sharing)
    return policy, judge_path, EngineJudge(policy if judge_path == source else _serve(judge_path, sharing))


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
        with file.open("rb") as opened:
            whole.update(f"{file.name} {hashlib.file_digest(opened, 'sha256').hexdigest()}\n".encode())
    return whole.hexdigest()
