"""For lmms-eval: a task of one completion and one of M sampled answers for each split, by `--include_path`."""

import json
import re
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import yaml

from emor3.hosts.exports.writing import ExportOptions, Written, by_split, image_path, place_images, plain_columns
from emor3.hosts.harnesses import lmms
from emor3.method.types import Sample
from emor3.stats.figures import FIGURES
from emor3.storage.outputs import write_whole

M, MOST_TOKENS = 8, 512
"""Sampled answers of a row, and tokens of a completion: the options of `emor3 evaluate --samples` and a margin."""
UTILS = "utils.py"
NOTES = (
    "`emor3 evaluate --from SAMPLES.jsonl --data FOLDER` reads the log of `--log_samples` back: the same figures, with "
    "intervals, and `emor3 compare` on them.",
    "Intervals here are lmms-eval's: `stderr_clustered` counts near copies (`group`) together; a figure of the whole "
    "table, such as macro-F1, has none.",
    "Leave `--reasoning_tags` at its default: completions are read as they are.",
    "Paths of images are absolute: write the folder anew after moving it.",
)


class _Function(str):
    """A name that stands in YAML as `!function utils.NAME`."""

    __slots__ = ()


class _Dumper(yaml.SafeDumper):
    """YAML with functions."""


_Dumper.add_representer(_Function, lambda dumper, name: dumper.represent_scalar("!function", f"utils.{name}"))


def task_name(folder: str, split: str) -> str:
    """What lmms-eval calls the task of a split, of the folder's name in letters, digits and underscores.

    >>> task_name("My photos", "test")
    'emor3_my_photos_test'
    """
    return re.sub(r"\W+", "_", f"emor3_{folder}_{split}".lower())


def write(samples: Sequence[Sample], folder: Path, options: ExportOptions) -> Written:
    """One JSON lines file and two YAML files for each split, and the functions that they name."""
    place_images(samples, folder, options)
    splits, files, tasks = by_split(samples), {}, []
    for split, part in splits.items():
        files[split] = f"{split}.jsonl"
        write_whole(folder / files[split], "".join(_lines(part, options)))
        tasks.append(task_name(options.source.name, split))
        data = str(options.out / files[split])
        voted = any(sample.distribution is not None for sample in part)
        for task in (_judged(tasks[-1], data), _sampled(f"{tasks[-1]}_sampled", data, voted)):
            write_whole(folder / f"{task['task']}.yaml", yaml.dump(task, Dumper=_Dumper, sort_keys=False))
    write_whole(folder / UTILS, _utils())
    chosen = next((name for name, split in zip(tasks, splits, strict=True) if split == "test"), tasks[0])
    command = (
        "python -m lmms_eval --model MODEL_TYPE --model_args pretrained=MODEL --batch_size 1 \\\n"
        f"  --include_path {options.out} --tasks {chosen} --log_samples --output_path OUTPUT"
    )
    return Written(files, command, (f"Tasks: {', '.join(tasks)}, each also with `_sampled`.", *NOTES))


def _lines(samples: Sequence[Sample], options: ExportOptions) -> Iterator[str]:
    for sample in samples:
        doc = lmms.to_doc(sample, options.template, [image_path(path, options) for path in sample.images])
        yield json.dumps({**doc, **plain_columns(sample)}, ensure_ascii=False) + "\n"


def _judged(name: str, data: str) -> dict[str, Any]:
    means = [_metric(metric, "mean") for metric in lmms.SHARES]
    return _task(name, data, "process_results", [*means, *map(_metric, lmms.COUNTED)]) | {
        "generation_kwargs": {"max_new_tokens": MOST_TOKENS, "do_sample": False, "temperature": 0, "until": []},
    }


def _sampled(name: str, data: str, voted: bool) -> dict[str, Any]:
    names = (*lmms.SAMPLED, *lmms.VOTED) if voted else lmms.SAMPLED
    return _task(name, data, "process_sampled", [_metric(name) for name in names]) | {
        "repeats": M,
        "filter_list": [{"name": "none", "filter": [{"function": "take_first_k", "k": M}]}],  # the default takes one
        "generation_kwargs": {"max_new_tokens": MOST_TOKENS, "do_sample": True, "temperature": 1.0, "until": []},
    }


def _metric(name: str, aggregation: str = "") -> dict[str, Any]:
    function = _Function(aggregation or f"aggregate_{name}")
    higher = FIGURES[name].better == "up"
    return {"metric": f"{lmms.PREFIX}{name}", "aggregation": function, "higher_is_better": higher}


def _task(name: str, data: str, process: str, metrics: list[dict[str, Any]]) -> dict[str, Any]:
    functions = ("doc_to_visual", "doc_to_text", "doc_to_target", "doc_to_messages")
    return {
        "task": name,
        "dataset_path": "json",
        "dataset_kwargs": {"data_files": {"test": data}},
        "test_split": "test",
        "output_type": "generate_until",
        **{function: _Function(function) for function in functions},
        "process_results": _Function(process),
        "metric_list": metrics,
        "cluster_key": "cluster",
        "metadata": [{"version": 1}],
    }


def _utils() -> str:
    names = ("doc_to_messages", "doc_to_target", "doc_to_text", "doc_to_visual", "mean")
    taken = ", ".join((*names, "process_results", "process_sampled"))
    return (
        '"""What the tasks beside this file name; emor3 has to be installed beside lmms-eval."""\n\n'
        f"from emor3.hosts.harnesses.lmms import AGGREGATIONS, {taken}  # noqa: F401\n\n"
        "globals().update(AGGREGATIONS)\n"
    )
