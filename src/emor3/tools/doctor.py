"""`emor3 doctor`: read-only checks that this machine can run emor3, before a run is paid for."""

import importlib
import platform
import re
import shutil
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, requires, version
from importlib.util import find_spec
from pathlib import Path
from random import Random
from tempfile import TemporaryDirectory
from typing import Literal

import torch
from huggingface_hub import HfApi
from huggingface_hub.errors import HTTPError
from packaging.requirements import Requirement
from rich.table import Table
from rich.text import Text
from transformers import AutoModelForImageTextToText

from emor3.errors import UserError
from emor3.models.architectures import PUBLISHED
from emor3.models.checkpoints import EMBEDDED, check_fit, check_folder, load, resolve_checkpoint
from emor3.models.generation import encode, generate
from emor3.models.loading import load_config
from emor3.models.processors import load_processor
from emor3.stats.format import gigabytes, tenths
from emor3.tiny.drawing import draw_scene

TESTED = {
    "torch": "2.13.0",
    "transformers": "5.23.0",
    "trl": "1.16.0",
    "accelerate": "1.15.0",
    "peft": "0.21.2",
    "datasets": "5.2.0",
}
"""Versions that the tests ran with; a test holds them to constraints.txt."""
HUB_MODEL = min(PUBLISHED)
LEAST_DISK, ENOUGH_DISK = 2e9, 50e9
"""Free bytes: the embedded model's runs, and a real model with two checkpoints."""

Status = Literal["ok", "warn", "fail"]
COLOURS: dict[Status, str] = {"ok": "green", "warn": "yellow", "fail": "red"}


@dataclass(frozen=True)
class Check:
    """One thing that was looked at."""

    name: str
    status: Status
    detail: str


def examine(model: str | None = None, ask_hub: bool = False) -> Iterator[Check]:
    """All checks, each as soon as it is done."""
    yield Check("python", "ok", f"{platform.python_version()} on {platform.system()} {platform.machine()}")
    yield from check_packages()
    yield check_accelerator()
    yield check_vllm()
    yield check_disk(shutil.disk_usage(".").free)
    yield check_hub() if ask_hub else Check("hub", "ok", "not asked: --hub looks for it")
    if model is not None:
        yield check_model(model)
    yield self_test()


def check_packages() -> Iterator[Check]:
    """Each package that matters: missing or out of range fails, another version than the tested one warns."""
    needed = {found.name: found for found in map(Requirement, requires("emor3") or [])}
    for name, tested in TESTED.items():
        try:
            yield check_version(name, version(name), tested, needed[name])
        except PackageNotFoundError:
            yield Check(name, "fail", f"not installed: pip install '{needed[name]}'")


def check_version(name: str, found: str, tested: str, needed: Requirement) -> Check:
    """One installed version against the range we need and the version we tested."""
    if not needed.specifier.contains(found, prereleases=True):
        return Check(name, "fail", f"{found} is outside {needed.specifier}: pip install '{needed}'")
    if found.partition("+")[0] != tested:
        return Check(name, "warn", f"{found}; the tests ran with {tested}")
    return Check(name, "ok", found)


def check_accelerator() -> Check:
    """GPUs with their memory."""
    count = torch.cuda.device_count()
    if count == 0:
        small = "embedded models, and the small one of the recipe photos_laptop, run on CPU"
        return Check("accelerator", "warn", f"none: {small}; larger ones need a GPU")
    found = [torch.cuda.get_device_properties(index) for index in range(count)]
    return Check("accelerator", "ok", "; ".join(f"{gpu.name}, {gigabytes(gpu.total_memory)} GB" for gpu in found))


def check_vllm() -> Check:
    """vLLM is an extra; if it is installed it must load."""
    if find_spec("vllm") is None:
        way = "transformers makes the completions; pip install -e '.[vllm]' in emor3's clone"
        return Check("vLLM", "warn", f"not installed: {way}")
    try:
        found = importlib.import_module("vllm").__version__  # its CPU builds have another distribution name
    except (ImportError, OSError, RuntimeError) as error:
        return Check("vLLM", "fail", f"installed but does not load: {_first_line(error)}")
    return Check("vLLM", "ok", found)


def check_disk(free: float) -> Check:
    """Room in the working folder, where runs are written."""
    room = f"{gigabytes(free)} GB free here"
    if free < LEAST_DISK:
        return Check("disk", "fail", f"{room}: a run of the embedded model needs {gigabytes(LEAST_DISK)}")
    if free < ENOUGH_DISK:
        return Check("disk", "warn", f"{room}: a model of 3B with two checkpoints needs {gigabytes(ENOUGH_DISK)}")
    return Check("disk", "ok", room)


def check_hub(seconds: float = 5) -> Check:
    """Whether the model hub answers in time."""
    try:
        HfApi().model_info(HUB_MODEL, timeout=seconds)
    except (HTTPError, OSError) as error:
        return Check("hub", "warn", f"no answer ({_first_line(error)}): use local folders")
    return Check("hub", "ok", "answers")


def check_model(path: str) -> Check:
    """Whether a checkpoint's configuration, processor, tokenizer and template belong together, and weights are whole.

    A local folder's weights are read once; those of the hub are not.
    """
    try:
        source = resolve_checkpoint(path)
        config, processor = load_config(source), load_processor(source)
        if type(config) not in AutoModelForImageTextToText._model_mapping:
            raise UserError(f"{path}: {config.model_type} is no image-text-to-text model")
        check_fit(config, processor, path)
        if Path(source).is_dir():
            check_folder(Path(source))
    except UserError as error:
        return Check("model", "fail", str(error))
    return Check("model", "ok", f"{path}: {config.model_type} with {type(processor).__name__}")


def self_test() -> Check:
    """The embedded model answers about a drawn picture, and a gradient reaches its first layer."""
    start = time.perf_counter()
    model, processor = load(EMBEDDED)
    with drawn_picture() as picture:
        request = ((picture,), "What is felt?")
        answer = generate(model, processor, [request], max_new_tokens=16)[0]
        inputs = encode(processor, [request]).to(model.device)
    loss = model(**inputs, labels=inputs["input_ids"]).loss
    loss.backward()
    gradient = model.get_input_embeddings().weight.grad
    seconds = f"in {tenths(time.perf_counter() - start)} s"
    if not answer or gradient is None or not bool(torch.isfinite(gradient).all() and gradient.any()):
        return Check("self-test", "fail", f"the embedded model does not answer and learn ({seconds})")
    return Check("self-test", "ok", f"the embedded model answers and learns, {seconds}")


@contextmanager
def drawn_picture() -> Iterator[str]:
    """The path of a picture to try a model on, which is there as long as the block runs."""
    with TemporaryDirectory() as scratch:
        draw_scene("balloon", "laughing", "meadow", "painted", Random(0)).save(f"{scratch}/scene.png")
        yield f"{scratch}/scene.png"


def _first_line(error: BaseException) -> str:
    return re.sub(r"\s+", " ", str(error).strip().split("\n")[0]) or type(error).__name__


def checks_table(checks: list[Check]) -> Table:
    """The checks as a person reads them."""
    table = Table("what", "", "found")
    for check in checks:
        table.add_row(check.name, Text(check.status, style=COLOURS[check.status]), check.detail)
    return table
