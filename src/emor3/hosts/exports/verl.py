"""For verl: Parquet files in its layout, with the packed row as the ground truth."""

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from emor3.hosts.exports import writing
from emor3.hosts.exports.writing import ExportOptions, Written
from emor3.method.types import Sample

NOTES = (
    writing.JUDGE,
    "verl asks for the reward of one completion at a time. Those of a worker that come within moments are scored as "
    "one batch, and a frozen judge is asked each question once; each worker (`reward.num_workers`) loads its own.",
    "It has no other row at hand, so each row names its distractors. It has no group, so a judge that fails on a "
    "completion ends the run, after its retries: a number would be held against the policy.",
    "A reward manager with the same scores: `reward.reward_manager.source=importlib "
    "reward.reward_manager.module.path=pkg://emor3.hosts.verl reward.reward_manager.name=EmotionRewardManager "
    "+reward.reward_kwargs.settings=FILE`.",
    writing.MOVED,
)


def write(samples: Sequence[Sample], folder: Path, options: ExportOptions) -> Written:
    """Rows `data_source`, `prompt`, `images`, `reward_model`, `extra_info`, one file a split.

    Raises UserError for too few distractors.
    """
    from datasets import List, Value

    writing.write_common(samples, folder, options)
    text = Value("string")
    features = {
        "data_source": text,
        "prompt": [{"role": text, "content": text}],
        "images": List(text),
        "reward_model": {"style": text, "ground_truth": text},
        "extra_info": {"index": Value("int64"), "split": text},
    }
    files = writing.write_splits(samples, folder, options, _rows, features)
    train, held_out = writing.train_and_held_out(files)
    command = writing.shell(
        ["python3", "-m", "verl.trainer.main_ppo", "algorithm.adv_estimator=grpo"],
        [f"data.train_files={options.out / train}", f"data.val_files={options.out / held_out}"],
        ["data.image_key=images", "actor_rollout_ref.model.path=MODEL", "actor_rollout_ref.rollout.n=8"],
        ["actor_rollout_ref.rollout.name=vllm"],
        ["reward.custom_reward_function.path=pkg://emor3.hosts.verl"],
        ["reward.custom_reward_function.name=compute_score"],
        [f"+reward.custom_reward_function.reward_kwargs.settings={options.out / writing.SETTINGS}"],
    )
    return Written(files, command, NOTES)


def _rows(samples: Sequence[Sample], options: ExportOptions) -> Iterator[dict[str, Any]]:
    for index, (sample, images, prompt, row) in enumerate(writing.packed(samples, options)):
        yield {
            "data_source": "emor3",
            "prompt": [{"role": "user", "content": writing.PLACEHOLDER * len(images) + prompt}],
            "images": images,
            "reward_model": {"style": "rule", "ground_truth": row},
            "extra_info": {"index": index, "split": sample.split},
            **writing.plain_columns(sample),
        }
