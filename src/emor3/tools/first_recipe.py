"""`emor3 init`: a first recipe for a person's own images, with the settings of the shipped recipe for this machine."""

import json
import os
import re
import shutil
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psutil
import torch

from emor3.data.check import Report, check
from emor3.data.folders import LABELS, found_labels, resolve_folder
from emor3.data.importers.importing import import_data
from emor3.data.settings import DataBlock
from emor3.errors import UserError, one_line
from emor3.method.labels import normalise
from emor3.models.architectures import is_limited
from emor3.models.checkpoints import PACKAGED
from emor3.runs.recipe import build_recipe
from emor3.stats.format import gigabytes
from emor3.storage.outputs import check_absent, write_whole
from emor3.storage.shipped import SUFFIX, shipped_recipes
from emor3.storage.yaml_text import parse_yaml
from emor3.tools import capacity
from emor3.tools.layout import layout_of, one_label

BY_MACHINE = ("emoset_3b_full_1x80gb", "emoset_3b_lora_1x24gb", "photos_laptop")
"""Shipped recipes whose settings are taken, the first one that fits the GPU; a machine without one takes the last."""
EMBEDDED = "oasis_photos"
"""Recipe whose settings go with the embedded models, on any machine."""
COMMENTS: Mapping[str, str] = {
    "model": "The start model, and what of it learns.",
    "cold_start": "A short supervised stage on image and label, before reinforcement learning.",
    "reward": "Weights and switches of the reward.",
    "judge": "Who answers the two questions on the reasoning: the policy itself, if `model` names no other.",
    "grpo": "Reinforcement learning: settings of TRL's GRPOConfig by its names.",
}
NOT_RUN = "NOT RUN BY US"
"""What shipped recipes say of themselves."""
END = """# To see whether it learns, and to keep the best policy on held-out samples in best/:
# evaluation: {every: 25, samples: 64, metric: accuracy}
# Every setting is told in docs/reference.md; any can be overridden, as in --set grpo.max_steps=50.
"""


@dataclass(frozen=True)
class Machine:
    """What there is to train on, in bytes."""

    gpu_memory: float
    """Of the GPU; 0 if there is none."""
    memory: float
    cores: int

    @property
    def usable(self) -> float:
        """Memory that a run has, as `emor3 plan` asks for it."""
        return self.gpu_memory or self.memory

    def __str__(self) -> str:
        gpu = f"a GPU of {gigabytes(self.gpu_memory)} GB" if self.gpu_memory else "no GPU"
        return f"{gpu}, {self.cores} CPU cores, {gigabytes(self.memory)} GB of memory"


def this_machine(gpu_gigabytes: float | None = None) -> Machine:
    """This machine, with the GPU of another one if its memory is given in GB (0: none)."""
    found = torch.cuda.get_device_properties(0).total_memory if torch.cuda.is_available() else 0
    gpu = found if gpu_gigabytes is None else gpu_gigabytes * 1e9
    return Machine(gpu, psutil.virtual_memory().total, os.cpu_count() or 1)


def data_folder(data: str, new: Path | None, copy: bool) -> str:
    """The data folder of these images, made as `emor3 data import` does (at `new`, else data/NAME) unless it is one.

    Raises UserError as `layout_of` and the import.
    """
    layout = layout_of(data)
    if layout is None:
        if new is not None:
            raise UserError(f"--import-to does nothing here: {data} is a data folder already, leave it out")
        return data
    name, source = layout
    out = new or Path("data") / name_of(data)
    if new is None and out.is_dir() and any(out.iterdir()):
        takes = f"`emor3 init {out}` takes it" if layout_of(str(out)) is None else "it is no data folder"
        raise UserError(f"{out} exists: {takes}, and --import-to DIR makes a new one")
    imported = import_data(name, str(source), out, copy=copy)
    labels = {normalise(label): label for counts in imported.rows.values() for label in counts}
    if len(labels) < 2:
        shutil.rmtree(out)  # made just now, of no use, and in the way of the next try
        raise one_label(data, *labels.values())
    return str(out)


def name_of(data: str) -> str:
    """A name for a folder, a recipe and a run after the data: that of the folder or file, fit for a file name."""
    path = Path(data).expanduser().resolve()
    stem = path.stem if path.is_file() else path.name
    return re.sub(r"[^\w-]+", "_", stem).strip("_") or "images"


def checked(folder: str, labels: str | None) -> Report:
    """What `emor3 data check` finds in the rows of a data folder, images unopened.

    Raises UserError for what would break training, and for one label only.
    """
    resolved = resolve_folder(folder)
    if labels is None and not (resolved / LABELS).exists():
        found = {normalise(label): label for label in found_labels(resolved, "label")}
        if len(found) < 2:
            raise one_label(folder, *found.values())
    report = check(folder, DataBlock.model_validate({"train": folder, "labels": labels}), None)
    faults = [case for tally in report.tallies() if tally.breaks_training for case in tally.cases]
    if faults:
        raise UserError(f"{folder}: {faults[0]}; `emor3 data check {folder} --for train` names all such faults")
    return report


def data_text(report: Report) -> str:
    """The data in a few words: labels, and rows of each split."""
    splits: dict[str, int] = {}
    for (split, _), rows in sorted(report.counts.items()):
        splits[split] = splits.get(split, 0) + rows
    rows_text = ", ".join(f"{split} {rows}" for split, rows in splits.items())
    return one_line(f"{len(report.labels.labels)} labels ({', '.join(report.labels.labels)}), rows: {rows_text}")


def settings_for(machine: Machine, folder: str, model: str | None) -> tuple[str, str]:
    """The shipped recipe whose settings fit the machine, and the model: the one asked for, or that of the recipe."""
    if model in PACKAGED:
        return EMBEDDED, model
    for name in BY_MACHINE:
        path = model or str(_content(name)["model"]["path"])
        if name == BY_MACHINE[-1] or (machine.gpu_memory and _fits(name, path, folder, machine)):
            break
    return name, path


def _content(name: str) -> dict[str, Any]:
    content: dict[str, Any] = parse_yaml(shipped_recipes()[name].read_text(encoding="utf-8"), f"the recipe {name}")
    return content


def _fits(name: str, model: str, folder: str, machine: Machine) -> bool:
    content = _content(name)
    content["data"] = {"train": folder}
    content["model"]["path"] = model
    recipe = build_recipe(content, [], name)
    room = capacity.Machine(1, machine.gpu_memory)
    return capacity.estimate_memory(recipe, capacity.model_config(model, None, INSTEAD), room).fits(room)


INSTEAD = "give a local folder, or leave --model out"


def write_recipe(output: Path, name: str, model: str, folder: str, labels: str | None, report: Report) -> None:
    """Write a recipe with the settings of a shipped one, its comments among them. Raises UserError if the file exists.

    Pixels are limited only if the model's processor can do so.
    """
    check_absent(output)
    text = shipped_recipes()[name].read_text(encoding="utf-8")
    blocks = re.split(r"^(?=\w)", text, flags=re.MULTILINE)[1:]  # the first part is the comment at its head
    head = f"# EMO-R3 on {one_line(folder)}, by `emor3 init`: the settings of the shipped recipe {name}.\n"
    if NOT_RUN in text:
        head += (
            "# They are computed to fit, and not run by us: try a few steps first, as with --set grpo.max_steps=3.\n"
        )
    made = (_block(block, output, model, folder, labels, report) for block in blocks)
    write_whole(output, head + "".join(made) + END)


def _block(block: str, output: Path, model: str, folder: str, labels: str | None, report: Report) -> str:
    """A block of a shipped recipe as it stands in a person's own, with a line that says what it is for."""
    key = block.partition(":")[0]
    if key == "output_dir":
        return f"# Records, checkpoints and the trained policy go here.\noutput_dir: {_quoted(f'runs/{output.stem}')}\n"
    if key == "data":
        chosen = f"  labels: {_quoted(labels)}\n" if labels else ""
        return f"# What to train on: {data_text(report)}.\ndata:\n  train: {_quoted(folder)}\n{chosen}"
    if key == "model" and f"path: {model}\n" not in block:
        block = re.sub(r"^  path: .*$", lambda _: f"  path: {_quoted(model)}", block, flags=re.MULTILINE)
        if not is_limited(capacity.model_config(model, None, INSTEAD)):
            block = re.sub(r"^  max_pixels: .*\n", "", block, flags=re.MULTILINE)
    return (f"# {COMMENTS[key]}\n" if key in COMMENTS else "") + block


def _quoted(text: str) -> str:
    """A text as YAML takes it, whatever it holds."""
    return text if re.fullmatch(r"[A-Za-z][\w./-]*", text, re.ASCII) else json.dumps(text)  # of lone surrogates, too


def default_output(data: str) -> Path:
    """The recipe's file if none is named."""
    return Path(f"{name_of(data)}{SUFFIX}")
