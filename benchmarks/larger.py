"""Larger models of the embedded one's architecture that say what it says: do ratios of costs hold as models grow?

The embedded weights stand in a corner of the larger ones. The rest is random, but what it would write into the residual
stream is zero, and the layers that are added write nothing. So the arithmetic is that of a dense model, while
completions are as long as the embedded model's and keep the format, and the judge has as much to read.
"""

import json
import shutil
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor
from transformers import AutoModelForImageTextToText

from emor3.models.checkpoints import resolve_checkpoint
from emor3.models.loading import load_config

SIZES = {"20M": (3.5, 6), "100M": (7.0, 8)}
"""Times the embedded model's width and layers of the language model that make about so many parameters."""
WRITE = ("embed", "o_proj", "down_proj", "attn.proj", "merger.mlp.2")
"""Parts of the names of weights that write into a residual stream."""
BLOCKS = {"attn.qkv": (0, 3), "merger.mlp.0.weight": (1, 4)}
"""Weights that are several side by side: along which dimension, and how many (a merger takes four patches at once)."""


def write_larger(size: str, folder: Path) -> int:
    """Write the checkpoint of a size into a new folder; its number of parameters."""
    small = Path(resolve_checkpoint("embedded"))
    shutil.copytree(small, folder, ignore=shutil.ignore_patterns("*.safetensors"))
    config = _config(json.loads((small / "config.json").read_text(encoding="utf-8")), *SIZES[size])
    (folder / "config.json").write_text(json.dumps(config), encoding="utf-8")
    torch.manual_seed(0)
    model = AutoModelForImageTextToText.from_config(load_config(str(folder)), trust_remote_code=False)
    model.save_pretrained(folder)
    file = folder / "model.safetensors"
    given = load_file(small / file.name)
    weights = {name: _grown(name, value, given.get(name)) for name, value in load_file(file).items()}
    save_file(weights, file, metadata={"format": "pt"})
    return sum(value.numel() for value in weights.values())


def _config(config: dict[str, Any], share: float, layers: int) -> dict[str, Any]:
    """The configuration with more heads of the same size, and so many times the width."""
    text, vision = config["text_config"], config["vision_config"]
    for part, names in (
        (text, ("hidden_size", "intermediate_size", "num_attention_heads", "num_key_value_heads")),
        (vision, ("hidden_size", "intermediate_size", "num_heads", "out_hidden_size")),
    ):
        part.update({name: round(part[name] * share) for name in names})
    text["num_hidden_layers"], text["layer_types"] = layers, ["full_attention"] * layers
    text["rms_norm_eps"] /= share  # the mean of squares is over so many more numbers
    return config


def _grown(name: str, drawn: Tensor, given: Tensor | None) -> Tensor:
    """A weight of the larger model: the embedded one in the corner of what was drawn."""
    value = torch.zeros_like(drawn) if any(part in name for part in WRITE) else drawn.clone()
    if given is None:
        return value
    if "norm" in name or "ln_q" in name:
        given = given * (len(given) / len(drawn)) ** 0.5
    dimension, count = next((blocks for part, blocks in BLOCKS.items() if part in name), (0, 1))
    for large, small in zip(value.chunk(count, dimension), given.chunk(count, dimension), strict=True):
        large[tuple(map(slice, small.shape))] = small
    return value
