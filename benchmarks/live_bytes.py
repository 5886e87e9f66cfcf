"""Bytes of all tensors that are alive in an update of the easy quickstart, by part, beside what `emor3 plan` estimates.

Counted where torch makes and frees them, which is exact and the same on every machine; resident memory is neither.
Usage: python benchmarks/live_bytes.py [KEY=VALUE ...]
"""

import sys
import weakref
from tempfile import TemporaryDirectory
from typing import Any

import torch
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves
from trl import GRPOTrainer

from emor3.runs.recipe import load_recipe
from emor3.tools.capacity import Machine, estimate_memory, model_config
from emor3.training.run import train
from emor3.training.trainer import EmoTrainer


class LiveBytes(TorchDispatchMode):
    """Counts what is made inside: `now`, and the `peak` before and after the first layer's backward pass began."""

    def __init__(self) -> None:
        super().__init__()
        self.sizes: dict[int, int] = {}
        self.head: int | None = None
        self.now, self.peak, self.backward = 0, 0, False

    def __torch_dispatch__(self, operation: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if self.backward and self.head is None and str(operation).startswith("aten.silu"):
            self.head, self.peak = self.peak, 0  # the head is done, layers begin
        given = {storage_of(leaf) for leaf in tree_leaves((args, kwargs)) if isinstance(leaf, torch.Tensor)}
        made = operation(*args, **(kwargs or {}))
        for leaf in tree_leaves(made):
            if isinstance(leaf, torch.Tensor) and storage_of(leaf) not in self.sizes.keys() | given:
                storage = leaf.untyped_storage()
                self.sizes[storage._cdata] = storage.nbytes()
                self.now += storage.nbytes()
                weakref.finalize(storage, self.freed, storage._cdata)
        self.peak = max(self.peak, self.now)
        return made

    def freed(self, key: int) -> None:
        self.now -= self.sizes.pop(key, 0)


def storage_of(tensor: torch.Tensor) -> int:
    return tensor.untyped_storage()._cdata


def measured(self: EmoTrainer, model: torch.nn.Module, inputs: dict[str, Any]) -> torch.Tensor:
    """Loss and backward pass once more than training needs, counted."""
    with LiveBytes() as live:
        loss = GRPOTrainer._compute_loss(self, model, inputs)
        kept = live.now
        live.peak, live.backward = 0, True
        loss.backward()
    parts = {"kept": kept, "at the head": live.head, "in the layers": live.peak}
    print(
        inputs["prompt_ids"].shape, inputs["completion_ids"].shape, {n: f"{b / 1e6:.1f} MB" for n, b in parts.items()}
    )
    model.zero_grad()
    return GRPOTrainer._compute_loss(self, model, inputs)


if __name__ == "__main__":
    EmoTrainer._compute_loss = measured
    with TemporaryDirectory() as folder:
        settings = [
            "grpo.max_completion_length=40",
            "grpo.max_steps=1",
            "grpo.save_steps=1",
            f"output_dir={folder}/run",
        ]
        recipe = load_recipe("quickstart_easy", [*settings, *sys.argv[1:]])
        found = estimate_memory(recipe, model_config("embedded", None), Machine())
        print({name: f"{amount / 1e6:.1f} MB" for name, amount in found.phases.items()})
        train(recipe)
