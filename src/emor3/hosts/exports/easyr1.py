"""For EasyR1: JSON lines with the packed row as the answer, a prompt file, and a file for its loader of rewards."""

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from emor3.errors import UserError
from emor3.hosts.exports import writing
from emor3.hosts.exports.writing import ExportOptions, Written
from emor3.method.types import Sample
from emor3.storage.outputs import write_whole

REWARD, FORMAT = "emor3_reward.py", "prompt.jinja"
LOADED = '''"""EasyR1 loads its reward by the path of this file."""

from emor3.hosts.easyr1 import REWARD_NAME, REWARD_TYPE, compute_score  # noqa: F401
'''
NOTES = (
    writing.JUDGE,
    "EasyR1 hands a reward the completion and the answer, no image: the answer is a JSON text with the paths.",
    "Its reward sees the whole batch of a step, so groups are settled as in a run of ours. `judge_failed` is the share "
    "of completions whose prompt the judge failed on: the part is left out for these.",
    f"Each row holds its whole prompt, because labels and texts may differ; `{FORMAT}` puts it in its place.",
    writing.MOVED,
)


def write(samples: Sequence[Sample], folder: Path, options: ExportOptions) -> Written:
    """Rows `problem`, `answer`, `images`, one file a split.

    Raises UserError for too few distractors, and for a path that EasyR1 would cut.
    """
    if "@" in str(options.out):
        raise UserError(f"{options.out}: EasyR1 takes what follows an @ in a path for a split: choose another folder")
    writing.write_common(samples, folder, options)
    write_whole(folder / REWARD, LOADED)
    write_whole(folder / FORMAT, "{{ content | trim }}\n")
    files = writing.write_splits(samples, folder, options, _rows)
    train, held_out = writing.train_and_held_out(files)
    command = writing.shell(
        ["python3", "-m", "verl.trainer.main", "config=examples/config.yaml"],
        [f"data.train_files={options.out / train}", f"data.val_files={options.out / held_out}"],
        ["data.prompt_key=problem", "data.answer_key=answer", "data.image_key=images"],
        [f"data.format_prompt={options.out / FORMAT}"],
        [f"worker.reward.reward_function={options.out / REWARD}:compute_score"],
        [f"worker.reward.reward_function_kwargs.settings={options.out / writing.SETTINGS}"],
        ["worker.actor.model.model_path=MODEL"],
    )
    return Written(files, command, NOTES)


def _rows(samples: Sequence[Sample], options: ExportOptions) -> Iterator[dict[str, Any]]:
    for sample, images, prompt, row in writing.packed(samples, options):
        problem = writing.PLACEHOLDER * len(images) + prompt
        yield {"problem": problem, "answer": row, "images": images, **writing.plain_columns(sample)}
