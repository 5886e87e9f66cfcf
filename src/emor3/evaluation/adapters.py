"""Checkpoints that hold adapters only (a LoRA run's): loaded on the model that they were trained on, and merged."""

from pathlib import Path

from peft import PeftModel
from transformers import PreTrainedModel, ProcessorMixin

from emor3.errors import UserError
from emor3.models.checkpoints import load
from emor3.models.loading import ADAPTER, adapters_from, check_adapters, refusal
from emor3.models.processors import load_processor
from emor3.runs.directory import COLD_START
from emor3.runs.recipe import Recipe
from emor3.runs.records import read_json


def holds_adapters(folder: Path) -> bool:
    """Whether a checkpoint holds adapters without the weights of their base."""
    return (folder / ADAPTER).is_file() and not (folder / "config.json").is_file()


def load_merged(
    folder: Path, run: Path | None = None, recipe: Recipe | None = None, device: str | None = None
) -> tuple[PreTrainedModel, ProcessorMixin]:
    """Model and processor of adapters merged into their base: the start of their run, else the base that they name.

    Raises UserError if either cannot be loaded.
    """
    if run is not None and recipe is not None:
        base = str(run / COLD_START) if recipe.cold_start and recipe.grpo is not None else recipe.model.path
    else:
        base = str(read_json(folder / ADAPTER).get("base_model_name_or_path"))
    check_adapters(folder)
    try:
        model, processor = load(base, recipe.model.dtype if recipe else "auto")
    except UserError as error:
        raise UserError(f"{folder} holds adapters of {base}, which does not load: {error}") from None
    with refusal(f"{folder} holds adapters of {base}, which do not load on it"):
        merged = adapters_from(PeftModel, model.to(device or model.device), str(folder)).merge_and_unload().eval()
    if (folder / "tokenizer_config.json").is_file():
        processor = load_processor(str(folder))
    return merged, processor
