"""Load, prepare and save a policy: any image-text-to-text checkpoint, full or LoRA, vision tower frozen or not."""

from collections.abc import Mapping
from importlib.resources import files
from pathlib import Path

import torch
from huggingface_hub import get_hf_file_metadata, hf_hub_url, try_to_load_from_cache
from huggingface_hub.errors import HTTPError
from transformers import AutoModelForImageTextToText, PreTrainedModel, ProcessorMixin

from emor3.errors import UserError
from emor3.processing import load_processor, save_processor

EMBEDDED = "embedded"
"""Name of the base checkpoint that ships with the package."""
VISION = ("visual", "vision_tower", "vision_model")
"""Names that transformers gives the vision tower across architectures."""
PROJECTOR = ("multi_modal_projector",)
"""What leads from the tower to the language model, where it stands outside the tower."""


def resolve_checkpoint(path: str) -> str:
    """Local folder or hub name of a checkpoint; "embedded" is the packaged base. Raises UserError on a missing path."""
    if path == EMBEDDED:
        return str(files("emor3") / "tiny" / "checkpoint")
    folder = Path(path)
    if folder.exists() and not (folder / "config.json").is_file():
        raise UserError(f"{path} is not a checkpoint: it has no config.json; give a folder saved by save_pretrained")
    if not folder.exists() and (folder.is_absolute() or path.startswith((".", "~")) or path.count("/") != 1):
        raise UserError(f"no checkpoint at {path}: give a folder, a hub name such as org/model, or {EMBEDDED!r}")
    if not folder.exists():
        _ask_hub(path)
    return path


def _ask_hub(name: str) -> None:
    """Raise UserError at once where a hub name leads nowhere; transformers tries every file again for minutes."""
    if isinstance(try_to_load_from_cache(name, "config.json"), str):
        return
    try:
        get_hf_file_metadata(hf_hub_url(name, "config.json"), timeout=10)
    except (HTTPError, OSError) as error:
        reason = str(error).splitlines()[0]
        raise UserError(f"no folder {name}, and the hub gives no such model: {reason}") from None


def load(path: str, dtype: str = "auto") -> tuple[PreTrainedModel, ProcessorMixin]:
    """Model (in eval mode, on the accelerator if there is one) and processor of a checkpoint.

    Only safetensors weights and no code from the checkpoint are loaded. Raises UserError where it cannot be loaded.
    """
    source = resolve_checkpoint(path)
    processor = load_processor(source)
    try:
        model = AutoModelForImageTextToText.from_pretrained(source, dtype=dtype, use_safetensors=True)
    except (OSError, ValueError) as error:
        raise UserError(f"cannot load {path} as an image-text-to-text model: {str(error).splitlines()[0]}") from None
    device = torch.accelerator.current_accelerator() if torch.accelerator.is_available() else torch.device("cpu")
    return model.to(device).eval(), processor


def save(
    model: PreTrainedModel,
    processor: ProcessorMixin,
    folder: str | Path,
    weights: Mapping[str, torch.Tensor] | None = None,
) -> None:
    """Save weights (safetensors; the model's own, or those given) and processor in plain Hugging Face format."""
    model.save_pretrained(folder, state_dict=weights)
    save_processor(processor, folder)


def vision_parameters(model: PreTrainedModel) -> list[torch.nn.Parameter]:
    """Parameters of the vision tower. Raises UserError where the model has none."""
    found = [p for name, p in model.named_parameters() if any(part in name.split(".") for part in VISION)]
    if not found:
        raise UserError(f"{type(model).__name__} has no vision tower to freeze: set model.freeze_vision to false")
    return found


def sees_unchanged(model: torch.nn.Module) -> bool:
    """Whether training leaves the way from pixels to embeddings as it is: no weight and no adapter in it learns."""
    return not any(
        parameter.requires_grad and not {*VISION, *PROJECTOR}.isdisjoint(name.split("."))
        for name, parameter in model.named_parameters()
    )
