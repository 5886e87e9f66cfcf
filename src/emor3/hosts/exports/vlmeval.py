"""For VLMEvalKit: a TSV for each split that its `CustomVQADataset` reads: our prompt, the images, the label."""

import base64
import csv
import io
import json
from collections.abc import Iterator, Sequence
from pathlib import Path
from shlex import quote

from emor3.errors import UserError
from emor3.hosts.exports.lmms import task_name
from emor3.hosts.exports.writing import PLAIN, ExportOptions, Written, by_split, image_path, place_images, plain_columns
from emor3.hosts.harnesses.answers import mark
from emor3.method.thinking import sample_prompt
from emor3.method.types import Sample
from emor3.storage.outputs import write_whole

MOST = 900_000_000
"""Bytes of a file with images in it: VLMEvalKit unpacks one over 1 GB into files first."""
NOTES = (
    "`--mode infer` only: its custom class for open answers has no figures. `emor3 evaluate --from PREDICTIONS.tsv "
    "--data FOLDER` makes ours.",
    "PRED_FORMAT=tsv or json: a cell of the default, xlsx, ends after 32,767 characters. Leave SPLIT_THINK unset.",
    "Some of its models have a prompt of their own for open questions (`use_custom_prompt`): it must be off.",
    "A server (`--base-url`) gets images as JPEG, small ones enlarged; with `--local-media` it opens the files itself.",
)


def write(samples: Sequence[Sample], folder: Path, options: ExportOptions) -> Written:
    """One TSV for each split; with `copy` the images stand in it. Raises UserError for a row without an image."""
    if bare := next((sample for sample in samples if not sample.images), None):
        raise UserError(
            f"{options.source}: row {bare.id!r} has no image, and VLMEvalKit's custom classes need one or more: leave "
            "such rows out, or use --for lmms"
        )
    if not options.copy:
        place_images(samples, folder, options)
    files, names = {}, {}
    for split, part in by_split(samples).items():
        names[split] = task_name(options.source.name, split)
        files[split] = f"{names[split]}.tsv"
        write_whole(folder / files[split], _table(part, options))
    chosen = names.get("test", next(iter(names.values())))
    command = (
        f"LMUData={quote(str(options.out))} PRED_FORMAT=tsv python run.py --data {chosen} --model MODEL \\\n"
        "  --mode infer --work-dir OUTPUT"
    )
    return Written(files, command, NOTES)


def _table(samples: Sequence[Sample], options: ExportOptions) -> str:
    text = io.StringIO()
    table = csv.writer(text, delimiter="\t", quoting=csv.QUOTE_ALL, lineterminator="\n")
    shown_as = "image" if options.copy else "image_path"
    table.writerow(["index", shown_as, "question", "answer", "emor3", *PLAIN])
    for place, sample in enumerate(samples):
        shown = [*_images(sample, options)]
        known = json.dumps(mark(sample, options.template), ensure_ascii=False)
        cell = shown[0] if len(shown) == 1 else str(shown)  # several are a list as Python writes it
        plain = [value or "" for value in plain_columns(sample).values()]
        table.writerow([place, cell, sample_prompt(sample, options.template), sample.label, known, *plain])
        if text.tell() > MOST:
            raise UserError(f"{options.source}: images of over {MOST:,} characters: leave --copy out")
    return text.getvalue()


def _images(sample: Sample, options: ExportOptions) -> Iterator[str]:
    for path in sample.images:
        yield base64.b64encode(Path(path).read_bytes()).decode() if options.copy else image_path(path, options)
