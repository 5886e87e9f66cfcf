"""For TRL: Parquet files with prompts in messages, images by their paths, and the packed row."""

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from emor3.hosts.exports import writing
from emor3.hosts.exports.writing import ExportOptions, Written
from emor3.hosts.rows import COLUMN
from emor3.method.types import Sample

NOTES = (
    writing.JUDGE,
    "The policy itself can judge in a script of your own: `emor3.hosts.trl.PolicyRewards` (docs/trainers.md).",
    "All parts are scored once for a batch. One that the judge failed on is left out for all completions of a prompt.",
    writing.MOVED,
)


def write(samples: Sequence[Sample], folder: Path, options: ExportOptions) -> Written:
    """Rows `prompt`, `images`, `emor3`, one Parquet file a split. Raises UserError for too few distractors."""
    from datasets import Image, List, Value

    writing.write_common(samples, folder, options)
    text = Value("string")
    features = {"prompt": [{"role": text, "content": text}], "images": List(Image()), COLUMN: text}
    files = writing.write_splits(samples, folder, options, _rows, features)
    names, weights = writing.paid_parts(options)
    command = writing.shell(
        ["trl", "grpo", "--model_name_or_path", "MODEL", "--output_dir", "OUTPUT"],
        ["--dataset_name", str(options.out)],
        ["--reward_funcs", *(f"emor3.hosts.trl.{name}" for name in names)],
        ["--reward_weights", *weights],
        ["--num_generations", "8", "--max_completion_length", "512"],
    )
    return Written(files, writing.with_settings(command, options), NOTES)


def _rows(samples: Sequence[Sample], options: ExportOptions) -> Iterator[dict[str, Any]]:
    for sample, images, prompt, row in writing.packed(samples, options):
        message, pictures = {"role": "user", "content": prompt}, [{"bytes": None, "path": path} for path in images]
        yield {"prompt": [message], "images": pictures, COLUMN: row, **writing.plain_columns(sample)}
