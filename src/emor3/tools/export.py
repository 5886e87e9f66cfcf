"""`emor3 export`: a trained policy as a plain checkpoint that anyone can load, with a model card that says what it is.

A run's `final/` holds merged weights already; a checkpoint of a LoRA run is merged with its start model here. What was
written is loaded again with plain transformers, and must give the same logits on a drawn picture.
"""

from collections.abc import Mapping, Sequence
from hashlib import sha256
from importlib.resources import files
from pathlib import Path
from typing import Any

import jinja2
import torch
import yaml
from huggingface_hub import HfApi, ModelCardData
from huggingface_hub.errors import HFValidationError, HTTPError
from pydantic import TypeAdapter
from torch import Tensor
from transformers import AutoModelForImageTextToText, PreTrainedModel, ProcessorMixin

from emor3 import __version__
from emor3.data.folders import resolve_folder
from emor3.data.rows import MANIFEST
from emor3.errors import UserError
from emor3.evaluation.adapters import holds_adapters, load_merged
from emor3.evaluation.share import card_figures, card_results, card_table
from emor3.method.thinking import build_prompt
from emor3.models.checkpoints import PACKAGED, load, save
from emor3.models.generation import Request, encode
from emor3.models.loading import ADAPTER, from_checkpoint
from emor3.models.processors import load_processor
from emor3.runs.directory import ENVIRONMENT, FINAL, read_recipe, run_of
from emor3.runs.evaluations import policy_step
from emor3.runs.predictions import SavedEvaluation, checksum
from emor3.runs.recipe import Recipe
from emor3.runs.records import Environment, read_json, typed
from emor3.stats.format import significant
from emor3.storage.outputs import new_output
from emor3.tools.doctor import drawn_picture
from emor3.training.dataset import chosen_samples

CARD = "README.md"
LOGIT_TOLERANCE = 1e-4
"""Largest difference of logits between the policy and what was written; both are in the same precision."""


def export(source: Path, output: Path, evaluation: SavedEvaluation | None = None) -> Path:
    """Write the policy of a run, or of one of its checkpoints, into a new folder; returns that folder.

    Raises UserError if the run is not finished, the folder is taken, the evaluation is of another model, or the
    written checkpoint does not give the policy's logits.
    """
    run, checkpoint = find_policy(source)
    if evaluation is not None and Path(evaluation.model).resolve() != checkpoint.resolve():
        raise UserError(f"{evaluation.folder} is an evaluation of {evaluation.model}, not of {checkpoint}")
    recipe = read_recipe(run)
    with new_output(output) as folder:
        model, processor = load_trained(run, checkpoint, recipe)
        save(model, processor, folder)
        difference = verify(model, processor, folder)
        (folder / CARD).write_text(model_card(run, checkpoint, recipe, evaluation, difference), encoding="utf-8")
    return output


def find_policy(source: Path) -> tuple[Path, Path]:
    """The run directory and the checkpoint to export. Raises UserError if there is no finished run."""
    run = run_of(source)
    if run is None:
        raise UserError(f"{source} is no run directory: give the folder that `emor3 train` wrote")
    checkpoint = source / FINAL if run == source else source
    if not (checkpoint / "config.json").is_file() and not (checkpoint / ADAPTER).is_file():
        raise UserError(f"{checkpoint} holds no policy: finish the run, or give one of its checkpoints")
    return run, checkpoint


def load_trained(run: Path, checkpoint: Path, recipe: Recipe) -> tuple[PreTrainedModel, ProcessorMixin]:
    """Policy of a checkpoint, on the CPU; adapters are merged into the model that the run started from.

    The GPU that trained it need not hold the model and the copy that it is verified with.
    """
    if holds_adapters(checkpoint):
        return load_merged(checkpoint, run, recipe, device="cpu")
    model, processor = load(str(checkpoint))
    return model.to("cpu"), processor


def verify(model: PreTrainedModel, processor: ProcessorMixin, folder: Path) -> float:
    """Load what was written with plain transformers; the largest difference of logits on a drawn picture.

    Raises UserError if it exceeds the tolerance.
    """
    again = from_checkpoint(AutoModelForImageTextToText, folder, dtype="auto", use_safetensors=True).to(model.device)
    with drawn_picture() as picture:
        request = [((picture,), "Describe the image.")]
        difference = _logits(model, processor, request) - _logits(again.eval(), load_processor(str(folder)), request)
    largest = float(difference.abs().max())
    if not largest <= LOGIT_TOLERANCE:  # also if it is NaN
        raise UserError(
            f"{folder}: the written checkpoint differs from the policy (logits by {significant(largest, 2)}): report it"
        )
    return largest


def _logits(model: PreTrainedModel, processor: ProcessorMixin, request: Sequence[Request]) -> Tensor:
    with torch.inference_mode():
        logits: Tensor = model(**encode(processor, request).to(model.device)).logits.float()
    return logits


def model_card(
    run: Path, checkpoint: Path, recipe: Recipe, evaluation: SavedEvaluation | None, difference: float
) -> str:
    """Text of the model card: what was trained, on what, how well it does, and what it must not be used for."""
    start = recipe.model.path
    stated = () if evaluation is None else card_figures(evaluation)
    on_hub = start not in PACKAGED and not Path(start).exists()
    metadata = ModelCardData(
        library_name="transformers",
        pipeline_tag="image-text-to-text",
        tags=["emo-r3", "emotion-recognition", "grpo", "trl"],
        base_model=start if on_hub else None,
        model_name=run.name,
        eval_results=None if evaluation is None else card_results(evaluation, stated),
    )
    environment = jinja2.Environment(
        undefined=jinja2.StrictUndefined, trim_blocks=True, lstrip_blocks=True, keep_trailing_newline=True
    )
    shipped = files("emor3") / "tools" / "templates" / "model_card.md"
    return environment.from_string(shipped.read_text(encoding="utf-8")).render(
        metadata=metadata.to_yaml(),
        name=run.name,
        version=__version__,
        checkpoint=checkpoint.name,
        start=public_name(start),
        recipe=recipe,
        settings=yaml.safe_dump(published(recipe), sort_keys=False),
        environment=typed(read_json(run / ENVIRONMENT), TypeAdapter(Environment), str(run / ENVIRONMENT)),
        steps=policy_step(run, checkpoint),
        data=data_facts(recipe),
        results=None if evaluation is None else card_table(evaluation, stated),
        difference=significant(difference, 1),
    )


def published(recipe: Recipe) -> Mapping[str, Any]:
    """The recipe as the card shows it: without paths of this machine."""
    settings = recipe.model_dump(exclude={"output_dir"}, exclude_none=True)
    settings["data"]["train"] = [public_name(folder) for folder in recipe.data.folders]
    settings["model"]["path"] = public_name(recipe.model.path)
    return settings


def public_name(path: str) -> str:
    """A hub name as it is, a local folder by its last part."""
    return Path(path).name if Path(path).exists() else path


def data_facts(recipe: Recipe) -> Mapping[str, Any] | None:
    """Names, checksums, labels and prompts of the training data; None if they are no longer at hand."""
    try:
        samples = chosen_samples(recipe)
        manifests = {public_name(folder): resolve_folder(folder) / MANIFEST for folder in recipe.data.folders}
    except UserError:
        return None
    label_sets = {source.labels.labels: source.labels for source in samples.sources}.values()
    return {
        "split": recipe.data.split or "all",
        "manifests": {name: sha256(manifest.read_bytes()).hexdigest() for name, manifest in manifests.items()},
        "n": len(samples),
        "ids": checksum([sample.id for sample in samples]),
        "prompts": [build_prompt(labels, recipe.prompt_template) for labels in label_sets],
    }


def push(folder: Path, repo: str) -> str:
    """Upload an exported folder to the hub as a private model repository; returns its address.

    Raises UserError if the hub refuses or cannot be reached.
    """
    hub = HfApi()
    try:
        address = hub.create_repo(repo, private=True, exist_ok=True)
        hub.upload_folder(repo_id=repo, folder_path=folder, commit_message=f"Export by emor3 {__version__}")
    except (HTTPError, HFValidationError, OSError) as error:
        raise UserError(f"{folder} is written, but the hub did not take it: {error}; `hf auth login` first") from None
    return str(address)
