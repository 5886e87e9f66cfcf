"""What a run trains on: its samples, the order they come in, and the rows that TRL reads.

Samples stay on disk until a batch is made of them.
"""

from array import array
from collections.abc import Callable, Sequence
from functools import partial
from random import Random
from typing import Any

import numpy as np
from datasets import Dataset
from transformers import ProcessorMixin

from emor3.data.folders import LazySamples, resolve_folder
from emor3.data.rows import MANIFEST
from emor3.errors import UserError
from emor3.heldout.samples import training_rows
from emor3.method.thinking import sample_prompt
from emor3.method.types import Sample
from emor3.models.processors import open_images
from emor3.runs.recipe import Recipe
from emor3.storage.files import file_digest


def chosen_samples(recipe: Recipe) -> LazySamples:
    """The samples a recipe trains on: those of its split, or `data.limit` of them drawn with the seed.

    None of them is evaluated on during training (`recipe.evaluation`).
    """
    limit = recipe.data.limit
    samples = training_rows(recipe.data, recipe.evaluation, recipe.seed)
    if limit is not None and limit < len(samples):
        samples = samples.pick(Random(recipe.seed).sample(range(len(samples)), limit))
    return samples


def manifest_sums(recipe: Recipe) -> list[str]:
    """SHA-256 of the manifest of each folder of training data: what a resumed run knows its data by."""
    return [file_digest(resolve_folder(folder) / MANIFEST).hex() for folder in recipe.data.folders]


def check_rows(samples: Sequence[Sample], recipe: Recipe) -> None:
    """Raises UserError if rows without images cannot be trained on as the recipe asks."""
    if not recipe.dynamic_sampling:
        return  # any rows will do, which need not be read
    without = next((sample.id for sample in samples if not sample.images), None)
    if without is not None and any(sample.images for sample in samples):
        raise UserError(
            f"sample {without!r} has no image and others have: dynamic_sampling cannot exchange such rows; set it to 0"
        )


def prompt_dataset(
    samples: Sequence[Sample], template: str, order: Sequence[int], processor: ProcessorMixin | None = None
) -> Dataset:
    """Rows of prompt, images and sample in the order of training."""
    return lazy_dataset(samples, order, partial(_prompt_row, template), processor)


def _prompt_row(template: str, sample: Sample) -> dict[str, Any]:
    return {"prompt": [{"role": "user", "content": sample_prompt(sample, template)}], "sample": sample}


def training_order(num_samples: int, count: int, seed: int) -> "array[int]":
    """`count` sample indices: a new permutation for every pass. Fixed beforehand, so that a resumed run just skips."""
    rng, order = Random(seed), array("q")
    while len(order) < count:
        order.extend(rng.sample(range(num_samples), num_samples))
    return order[:count]


def lazy_dataset(
    samples: Sequence[Sample],
    order: Sequence[int],
    row: Callable[[Sample], dict[str, Any]],
    processor: ProcessorMixin | None = None,
) -> Dataset:
    """`row` of the samples at the places of `order`, and their `images`; nothing is read before a batch is made.

    Large images come in the size that the processor makes of them, if one is given.
    """
    return Dataset.from_dict({"place": np.asarray(order)}).with_transform(partial(_batch, samples, row, processor))


def _batch(
    samples: Sequence[Sample],
    row: Callable[[Sample], dict[str, Any]],
    processor: ProcessorMixin | None,
    batch: dict[str, list[int]],
) -> dict[str, list[Any]]:
    """Rows of a batch as columns; a sample that stands there several times is read once, and so is a picture."""
    read = {place: samples[place] for place in dict.fromkeys(batch["place"])}
    opened = open_images((path for sample in read.values() for path in sample.images), processor)
    shown = [read[place] for place in batch["place"]]
    rows = [row(sample) | {"images": [opened[path] for path in sample.images]} for sample in shown]
    return {name: [made[name] for made in rows] for name in rows[0]}
