"""A step of EMO-R3 at the true size: a model of Qwen2.5-VL-3B's shape with random weights and the real tokenizer."""

import json
import shutil
from pathlib import Path
from typing import Any

import torch
from transformers import AutoModelForImageTextToText

from emor3.models.loading import PROCESSOR_TEXTS, load_config

FILES = ("generation_config.json", "merges.txt", *PROCESSOR_TEXTS)
"""Of a published checkpoint, beside its configuration and weights."""
WEIGHTS = "model*.safetensors*"


def write_checkpoint(
    files: Path, folder: Path, *, config: Path | None = None, layers: int | None = None, width: int | None = None
) -> int:
    """A checkpoint with random bfloat16 weights and the other files of `files`, as published; its parameters."""
    folder.mkdir(parents=True)
    for name in FILES:
        if (files / name).is_file():
            shutil.copyfile(files / name, folder / name)
    content = resized(json.loads((config or files / "config.json").read_text(encoding="utf-8")), layers, width)
    (folder / "config.json").write_text(json.dumps(content, indent=1), encoding="utf-8")
    torch.manual_seed(0)
    with torch.device("cuda" if torch.cuda.is_available() else "cpu"):
        model = AutoModelForImageTextToText.from_config(
            load_config(str(folder)), dtype=torch.bfloat16, trust_remote_code=False
        )
    scratch = folder / "weights"
    model.save_pretrained(scratch)  # whose settings are in another form than the published ones
    for path in scratch.glob(WEIGHTS):
        path.rename(folder / path.name)
    shutil.rmtree(scratch)
    parameters: int = model.num_parameters()
    return parameters


def resized(config: dict[str, Any], layers: int | None, width: int | None) -> dict[str, Any]:
    """The configuration with fewer layers and a smaller width in the same geometry: patches, windows, vocabulary."""
    text, vision = config.get("text_config", config), config["vision_config"]
    if layers is not None:
        vision["depth"] = max(1, vision["depth"] * layers // text["num_hidden_layers"])
        text["num_hidden_layers"] = layers
        whole = [place for place in vision["fullatt_block_indexes"] if place < vision["depth"]]
        vision["fullatt_block_indexes"] = whole or [vision["depth"] - 1]
    if width is not None:
        share = width / text["hidden_size"]
        for part in (text, vision):
            part["hidden_size"] = round(part["hidden_size"] * share)
            part["intermediate_size"] = round(part["intermediate_size"] * share)
        vision["out_hidden_size"] = width
        vision["num_heads"] = next(n for n in (16, 8, 4, 2, 1) if vision["hidden_size"] % (4 * n) == 0)
        text["num_attention_heads"] = next(n for n in (16, 8, 4, 2) if width % (16 * n) == 0)
        half = width // text["num_attention_heads"] // 2
        rope = text.get("rope_scaling") or text["rope_parameters"]
        rope["mrope_section"] = [half // 4, half * 3 // 8, half * 3 // 8]
    return config
