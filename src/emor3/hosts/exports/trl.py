"""For TRL: Parquet files with prompts in messages, images by their paths, and the packed row."""

from collections.abc import Iterator, Sequence
from pathlib import Path
from shlex import quote
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
    from datasets import Features, Image, List, Value

    writing.write_common(samples, folder, options)
    text = Value("string")
    plain = dict.fromkeys(("id", "label", "group", "distribution"), text)
    features = Features({"prompt": [{"role": text, "content": text}], "images": List(Image()), COLUMN: text, **plain})
    files = {}
    for split, part in writing.by_split(samples).items():
        files[split] = f"{split}.parquet"
        writing.write_parquet(folder / files[split], _rows(part, options), features)
    names, weights = writing.paid_parts(options)
    command = writing.shell(
        ["trl", "grpo", "--model_name_or_path", "MODEL", "--output_dir", "OUTPUT"],
        ["--dataset_name", str(options.out)],
        ["--reward_funcs", *(f"emor3.hosts.trl.{name}" for name in names)],
        ["--reward_weights", *weights],
        ["--num_generations", "8", "--max_completion_length", "512"],
    )
    return Written(files, f"EMOR3_REWARD={quote(str(options.out / writing.SETTINGS))} {command}", NOTES)


def _rows(samples: Sequence[Sample], options: ExportOptions) -> Iterator[dict[str, Any]]:
    for sample, images, prompt, row in writing.packed(samples, options):
        message, pictures = {"role": "user", "content": prompt}, [{"bytes": None, "path": path} for path in images]
        yield {"prompt": [message], "images": pictures, COLUMN: row, **writing.plain_columns(sample)}
