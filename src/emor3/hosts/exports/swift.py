"""For ms-swift: JSON lines with messages, images and the packed row, and a plugin file."""

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from emor3.hosts.exports import writing
from emor3.hosts.exports.writing import ExportOptions, Written
from emor3.hosts.rows import COLUMN
from emor3.method.types import Sample
from emor3.storage.outputs import write_whole

PLUGIN = "emor3_plugin.py"
LOADED = '''"""ms-swift loads its plugins by the path of this file."""

from emor3.hosts.swift import register

register()
'''
NOTES = (
    writing.JUDGE,
    "All parts are scored once for a batch. One that the judge failed on is left out for all completions of a prompt.",
    "ms-swift 4.6 wants TRL below 1.0, emor3 wants a newer one: install emor3 beside it without its dependencies "
    "(`pip install --no-deps`, docs/trainers.md).",
    writing.MOVED,
)


def write(samples: Sequence[Sample], folder: Path, options: ExportOptions) -> Written:
    """Rows `messages`, `images`, `emor3`, one file a split. Raises UserError for too few distractors."""
    writing.write_common(samples, folder, options)
    write_whole(folder / PLUGIN, LOADED)
    files = writing.write_splits(samples, folder, options, _rows)
    train, _ = writing.train_and_held_out(files)
    names, weights = writing.paid_parts(options)
    command = writing.shell(
        ["swift", "rlhf", "--rlhf_type", "grpo", "--model", "MODEL", "--dataset", str(options.out / train)],
        ["--external_plugins", str(options.out / PLUGIN)],
        ["--reward_funcs", *(f"emor3_{name}" for name in names)],
        ["--reward_weights", *weights],
        ["--num_generations", "8", "--max_completion_length", "512"],
    )
    return Written(files, writing.with_settings(command, options), NOTES)


def _rows(samples: Sequence[Sample], options: ExportOptions) -> Iterator[dict[str, Any]]:
    for sample, images, prompt, row in writing.packed(samples, options):
        message = {"role": "user", "content": writing.PLACEHOLDER * len(images) + prompt}
        yield {"messages": [message], "images": images, COLUMN: row, **writing.plain_columns(sample)}
