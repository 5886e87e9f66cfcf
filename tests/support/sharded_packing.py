"""One rank of `test_ddp.py`: gradients of weights sharded over two processes (FSDP2) under checkpointing.

Rank 0 packs the completions of its prompt into a row, rank 1 has a row for each. Usage: sharded_packing.py CHECKPOINT
IMAGE OUTPUT
"""

import json
import os
import sys
from typing import Any

import torch
from accelerate import PartialState
from torch import Tensor
from torch.distributed.fsdp import fully_shard
from trl.trainer.utils import add_fused_lm_head

from emor3.models.checkpoints import load
from emor3.models.generation import encode
from emor3.models.packing.rows import pack, packed_inputs

COUNT, LENGTH = 3, 4
state = PartialState(cpu=True)
assert state.num_processes == 2, "real processes, not one that was silently started alone"
checkpoint, image, output = sys.argv[1:]
model, processor = load(checkpoint)
add_fused_lm_head(model)
model.train()
model.gradient_checkpointing_enable()


def completed(rank: int) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
    """Inputs for one row a completion without their image, and the image; completions of a rank's own."""
    inputs = encode(processor, [((image,), "What is felt? " * (rank + 1))])
    own = torch.arange(COUNT * LENGTH).view(COUNT, LENGTH) + 300 + 20 * rank
    ends = {"input_ids": own, "attention_mask": torch.ones_like(own)}
    images = {name: inputs.pop(name) for name in ("pixel_values", "image_grid_thw")}
    rows = {name: value.expand(COUNT, -1) for name, value in inputs.items()}
    return {name: torch.cat([value, ends.get(name, 0 * own)], 1) for name, value in rows.items()}, images


def separate(rank: int) -> Any:
    """Log-probabilities of a rank's completions by a row for each."""
    tokens, images = completed(rank)
    labels = tokens["input_ids"].clone()
    labels[:, :-LENGTH] = -100
    shown = {name: torch.cat([value] * COUNT) for name, value in images.items()}
    return model(**tokens, **shown, labels=labels, fused_lm_head=True).log_probs[:, -LENGTH:]


def packed(rank: int) -> Any:
    """The same by one row for all."""
    tokens, images = completed(rank)
    rows = pack(tokens["attention_mask"], LENGTH, [list(range(COUNT))])
    inputs = packed_inputs(model, rows, tokens, tokens["input_ids"].shape[1] - LENGTH, images)
    return rows.by_completion(model(**inputs, use_cache=False, fused_lm_head=True).log_probs)


for rank in range(2):
    (separate(rank).sum() / 2).backward()  # FSDP2 takes the mean over ranks
alone = {name: weight.grad.clone() for name, weight in model.named_parameters() if weight.grad is not None}
model.zero_grad()
for layer in [*model.model.visual.blocks, *model.model.language_model.layers, model]:
    fully_shard(layer)
way = (packed, separate)[state.process_index]
way(state.process_index).sum().backward()
shards: dict[str, Any] = {name: weight.grad for name, weight in model.named_parameters()}
together = {name: shard.full_tensor() for name, shard in shards.items()}
apart = max(float((together[name] - gradient).abs().max()) for name, gradient in alone.items())
found = {"world": 2, "apart": apart, "largest": max(float(gradient.abs().max()) for gradient in alone.values())}
with open(f"{output}/rank{state.process_index}.json", "w", encoding="utf-8") as file:
    json.dump(found, file)
state.wait_for_everyone()
os._exit(0)  # everything is written; torch's own threads abort about one exit in ten after raw fully_shard on gloo
