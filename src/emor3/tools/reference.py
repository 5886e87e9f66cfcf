"""The reference page of all settings and of every file that runs and evaluations write, made from the code.

`python -m emor3.tools.reference docs/reference.md` writes it anew; a test compares it, and the files with what is
written.
"""

import json
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from pydantic import BaseModel

from emor3.data.importers.importing import RECORD
from emor3.experiments.plan import Plan
from emor3.judges.group_signal import GROUP
from emor3.review.marks import MARKS
from emor3.runs.directory import (
    BEST,
    BEST_OF,
    CHECKPOINTS,
    COLD_START,
    CONFIG,
    ENVIRONMENT,
    EVALUATIONS,
    FINAL,
    HELD_OUT,
    JUDGE,
    METRICS,
    ROLLOUTS,
    START,
)
from emor3.runs.predictions import EVALUATION, PREDICTIONS, RESULTS, TABLE
from emor3.runs.recipe import OWNED, Recipe
from emor3.runs.score_format import RESULT, ROW
from emor3.stats.figures import FIGURES
from emor3.stats.format import markdown_table
from emor3.training.trl_config import REFUSED

FINDING = (
    "`verdict` (supported, refuted, unreadable, not_asked, error), `question` and `reply` as texts, `probabilities` of "
    "the possible replies (0 to 1, or null), `reason` if there is no reply, `distractors`: replies on other samples"
)
ESTIMATE = "`value`, `low` and `high` (95% interval), `n` items behind it"
ENVIRONMENT_KEYS = {
    "emor3": "version of emor3",
    "commit": "of the checkout that emor3 runs from (`-dirty`: with changed files), or null if it is installed",
    "python": "version",
    "packages": "versions by name",
    "machine": "kind of processor",
    "cores": "number of processor cores",
    "accelerators": "names of the GPUs",
}
REASONING_KEYS = {
    "completion": "what the model wrote",
    "trigger": "step 1, or null",
    "feeling": "step 2, or null",
    "conclusion": "step 3, or null",
    "answer": "what stands in the box, or null",
    "problem": "why the format is broken, or null",
    "confidence": "how likely it says that its answer is right, 0 to 1, or null",
}

RUN_FILES: Mapping[str, Mapping[str, str]] = {
    ENVIRONMENT: ENVIRONMENT_KEYS,
    START: {
        "n": "sampled completions of the start model, each of one training image",
        "format": "of these, how many keep the format",
        "named": "of these, how many name a label of the set",
        "temperature": "at which they were sampled",
    },
    JUDGE: {
        "auc": "0 to 1, by chance 0.5: how well the judge tells an image's own description from another one's",
        "yes_own": "mean share of yes on own descriptions, 0 to 1",
        "yes_swapped": "the same on descriptions of other images",
        "n": "images that it was tried on",
        "groups": f"images with {GROUP} sampled completions of which the judge judged at least two",
        "alike": "of these, how many of whose completions the judge says the same: reflection makes no advantage there",
        "auc_within": "on embedded data: mean over mixed groups of the AUC between right and wrong descriptions of one "
        "image, by what reflection pays for them; by chance 0.5, null if the drawn truth is known of none",
        "mixed_groups": "groups with right and wrong descriptions; 0 on other data, where the truth is not known",
    },
    HELD_OUT: {
        "data": "folder or folders that the held-out samples come from",
        "split": "of these; null: all rows of a folder, or a slice of the training rows",
        "n": "how many they are",
        "sample_ids": "of each of them, in order",
        "sample_ids_sha256": "of these ids: a resumed run must be evaluated on the same",
    },
    EVALUATIONS: {
        "step": "optimizer steps behind the policy, from 0; in a run without a grpo block those of its cold start",
        "n": "held-out samples, each answered once, greedily",
        "accuracy": "share of right answers, 0 to 1; one that cannot be read is wrong",
        "format": "share of completions that keep the format",
        "perception": "share of which step 1 names exactly the factors that were drawn; only on drawn pictures",
    },
    METRICS: {
        "step": "optimizer step, from 1",
        "epoch": "passes over the training samples",
        "loss": "of the step",
        "grad_norm": "Euclidean norm of the gradient before clipping",
        "learning_rate": "of the step",
        "num_tokens": "tokens of prompts and completions up to this step",
        "step_time": "seconds of the step",
        "time/*": "seconds of a phase: generate, reflect, log_probs, update, and evaluate after some steps",
        "completions/*length": "tokens of completions: mean, least, most; `terminated`: of those that were not cut",
        "completions/clipped_ratio": "share of completions cut at the maximal length, 0 to 1",
        "reward": "mean total reward, 0 to 1",
        "reward_std": "standard deviation of rewards",
        "rewards/*/mean": "mean of a raw, unweighted part of the reward, 0 to 1 (of one's own: as it gives)",
        "rewards/*/std": "its standard deviation",
        "frac_reward_zero_std": "share of groups whose rewards are all equal, 0 to 1",
        "canary/yes_own": "share of yes of the live judge on own images, 0 to 1",
        "canary/yes_swapped": "the same on other images: must stay low",
        "canary/label_leak": "share of completions that name a label in steps 1 and 2",
        "canary/orders": "share of completions that talk to the judge",
        "canary/length": "mean words of steps 1 and 2",
        "canary/duplicates": "share of descriptions that several images got",
        "judge/errors": "share of questions without a reply, 0 to 1",
        "dynamic_sampling/attempts": "draws of prompts in the step",
        "kl": "mean KL to the reference policy, nats a token; with grpo.beta above 0",
        "entropy": "mean entropy, nats a token",
        "clip_ratio/*": "share of tokens whose ratio was clipped, 0 to 1",
        "sampling/*": "with vLLM: difference of its probabilities from the trainer's, and the weights that correct it",
    },
    ROLLOUTS: {
        "step": "optimizer step, from 1",
        "group": "number of the prompt in the step, from 0",
        "sample": "id of the sample",
        "images": "paths",
        "text": "what accompanies the images, or null",
        "clip": "name of the video whose frames the images are; absent if they are none",
        "label": "the true label",
        "completion": "what the policy wrote",
        "thought": "its parts: trigger, feeling, conclusion (steps 1 to 3), answer, problem, confidence",
        "reflection": f"`consistency` and `coherence`, null or {FINDING}",
        "parts": "raw, unweighted parts of the reward, 0 to 1 (of one's own: as it gives), or null",
        "reward": "their weighted sum",
        "placebo": "place in the group, from 0, of the row whose reflection was paid in place of its own "
        "(`reward.placebo`); null if its own was",
    },
}
"""Files of a run directory with the keys of their object, or of each of their lines."""

EVALUATION_FILES: Mapping[str, Mapping[str, str]] = {
    EVALUATION: {
        "version": "of the format",
        "model": "checkpoint that was evaluated",
        "start": "start model of the run that it lies in, or null",
        "judge": "checkpoint that judged the reasoning",
        "checkpoints": "SHA-256 of the files of both, or the commit of a hub's, by path",
        "settings": "split, labels, decoding and the other options",
        "environment": f"as `{ENVIRONMENT}`",
        "data": "for each data set: `data`, `n` samples, `label_set`, `sample_ids` and their SHA-256, and "
        "`content_sha256` of its rows and images; of an imported folder `imported`: set, policy and its manifest's sum",
    },
    PREDICTIONS: {
        "data": "the data set",
        "id": "of the sample",
        "images": "paths",
        "text": "what accompanies the images, or null",
        "clip": "name of the video whose frames the images are; absent if they are none",
        "label": "the true label",
        "votes": "human votes as shares by label, or null",
        "group": "near copies share one, or null",
        "predicted": "the label that is answered; null: unparsed",
        **REASONING_KEYS,
        "consistency": f"null or {FINDING}",
        "coherence": "the same",
        "swapped": "the control: consistency with another sample's step 1",
        "sampled": "labels of the sampled answers (null: unparsed), or null",
        "valence": "mean rating of people, 0 to 1 in sets whose scale is known, or null",
        "arousal": "the same",
    },
    RESULTS: {
        "data": f"as in `{EVALUATION}`, and for each data set further:",
        "data[].figures": f"by name (below): {ESTIMATE}",
        "data[].majority_class": "the same of always answering the most frequent label",
        "data[].confusion": "counts, true label by answer in the order of the label set; the last column is unparsed",
        "data[].reliability": "with sampled answers: sums of confidence and hits and the count of each bin",
        "data[].risk_coverage": "with sampled answers: error rate among the 1, 2, … surest samples",
        "data[].stated_reliability": "with stated confidence: the same sums and counts of its bins",
        "data[].stated_risk_coverage": "with stated confidence: the same error rates",
    },
}
"""Files of an evaluation's folder."""

MARK_KEYS = {
    "data": "the data set",
    "id": "of the sample",
    "completion": "SHA-256 of the completion: a mark counts for no other one",
    "reviewer": "name of the person",
    "emotion": "the label that steps 1 and 2 convey, or null: none of the set",
    "describes": "whether step 1 describes the image",
    "follows": "whether step 3 follows from steps 1 and 2; null: there is no step 3",
    "seed": "of the draw",
    "seconds": "how long the completion was shown before",
    "time": "when it was marked, in UTC",
}

FOLDERS = {
    CONFIG: "the recipe with every setting as it was used (settings of a recipe, above)",
    f"{CHECKPOINTS}/": "`checkpoint-N` after step N: the policy (LoRA: adapters) and what a resumed run needs; "
    "`judge_ema.safetensors` is the moving average that judges",
    f"{COLD_START}/": "the policy after the cold start, in Hugging Face format; only if the recipe has one",
    f"{FINAL}/": "the trained policy, in Hugging Face format, adapters merged",
    f"{BEST}/": "the policy that did best on held-out samples as it learnt, in Hugging Face format (LoRA: adapters), "
    f"and `{BEST_OF}` with its `step`, the `metric` that chose it, the `value` of that and its `n`; if evaluated",
}

LAST_MARK = "A file for each reviewer. Of several lines on one completion the last one counts."

UNANSWERED = (
    "A sample of which no sampled answer can be read is wrong in `leading_accuracy`, counted in `unanswered`, has "
    "confidence 0 in `expected_calibration_error` and `risk_coverage_area`, 1 in `brier`, and no part in distances to "
    "votes (their `n` tells how many have)."
)

TABLE_KEYS = {
    "figure": "accuracy, or a figure of the reasoning",
    "method": "name of the method",
    "column": "training domain → test set, or an average",
    "value": "share, 0 to 1, mean over seeds",
    "low": "lower end of the 95% interval",
    "high": "upper end",
    "n": "items behind it",
    "seeds": "seeds behind it",
    "seed_deviation": "standard deviation over seeds; empty for one",
    "p_value": "against the reference method, over seeds and items, after Holm's correction; empty for none",
    "bold": "whether it is clearly the best of its column",
    "difference": "to the reference method, a share; empty for none",
    "difference_low": "lower end of its 95% interval over items, and over seeds if there are several",
    "difference_high": "upper end",
    "smallest_effect": "the difference that 80% of such studies find",
}


QUICKSTART_KEYS = {
    "seed": "of the run",
    "judge": "checkpoint that judged both evaluations",
    "seconds": "from start to table",
    "environment": f"as `{ENVIRONMENT}`",
    "outcomes": f"for each data set and decoding: figures `before` and `after` training ({ESTIMATE}), paired tests; "
    "`perception`: step 1 exactly right, so it names each factor of the drawn scene and no other value of one",
}
IMPORT_KEYS = {
    "set": "name of the data set",
    "source": "where it lay",
    "policy": "label policy",
    "labels": "name of the label set, or `from the data`",
    "split": "whose split it is",
    "rows": "number of rows by split and label",
    "dropped": "each entry that became no row, and why",
    "votes": "how rows with one vote each became rows with a distribution, or empty",
    "vanished": "labels of the source of which no row is left",
    "frames": "drawn of each clip; null: a set of images",
    "terms": "under which the set may be used, if they are known",
    "manifest_sha256": "of metadata.jsonl",
    "emor3": "version of emor3",
}


def page() -> str:
    """The reference page as Markdown."""
    parts = [
        "# Reference\n\nMade by `python -m emor3.tools.reference docs/reference.md`; do not edit.\n",
        "## Settings of a recipe\n",
        settings_table(Recipe),
        "### Settings of TRL that the block `grpo` does not take\n",
        markdown_table(("settings", "instead, or why"), _not_taken()),
        "## Settings of a plan (`emor3 reproduce`)\n",
        settings_table(Plan),
        "## Files of a run (`emor3 train`)\n",
        markdown_table(("file", "what it holds"), [(f"`{name}`", meaning) for name, meaning in FOLDERS.items()]),
        *_files(RUN_FILES),
        "## Files of an evaluation (`emor3 evaluate`)\n",
        *_files(EVALUATION_FILES),
        f"### `{MARKS.format('NAME')}` of `emor3 review`, one object a line\n\n{LAST_MARK}\n",
        _keys(MARK_KEYS),
        f"### Figures\n\nNames in `{RESULTS}`. Shares are from 0 to 1.\n\n{UNANSWERED}\n",
        markdown_table(("figure", "as tables call it", "better", "needs"), _figures()),
        f"## `{TABLE}` of a reproduction (`emor3 reproduce`)\n",
        _keys(TABLE_KEYS),
        f"## `{RESULTS}` of `emor3 quickstart`\n",
        _keys(QUICKSTART_KEYS),
        f"## `{RECORD}` of `emor3 data import`\n",
        _keys(IMPORT_KEYS),
        "## `emor3 score`\n\nA line of its file:\n",
        _keys(ROW),
        "A line that it prints:\n",
        _keys(RESULT),
    ]
    return "\n".join(parts)


def _not_taken() -> Iterator[tuple[str, str]]:
    """Names of TRL's settings by the reason why they are not taken."""
    by_reason: dict[str, list[str]] = {}
    for name, reason in (OWNED | REFUSED).items():
        by_reason.setdefault(reason, []).append(f"`{name}`")
    return ((", ".join(names), reason) for reason, names in by_reason.items())


def _files(files: Mapping[str, Mapping[str, str]]) -> Iterator[str]:
    for name, keys in files.items():
        yield f"### `{name}`" + (", one object a line\n" if name.endswith("l") else "\n")
        yield _keys(keys)


def _keys(keys: Mapping[str, str]) -> str:
    return markdown_table(("key", "what it holds"), [(f"`{key}`", meaning) for key, meaning in keys.items()])


def _figures() -> Iterator[tuple[str, str, str, str]]:
    for name, row in FIGURES.items():
        title, judge = row.title.strip(), ", a judge" if row.judged else ""
        yield f"`{name}`", title if row.unit == "share" else f"{title}; no share", row.better, row.needs + judge


def settings_table(schema: type[BaseModel]) -> str:
    """All settings of a schema with their blocks', by dotted names: what they take, their default, what they mean."""
    content = schema.model_json_schema()
    return markdown_table(("setting", "takes", "default", "meaning"), _settings(content, content, ""))


def _settings(block: Mapping[str, Any], schema: Mapping[str, Any], prefix: str) -> Iterator[tuple[str, str, str, str]]:
    for name, setting in block["properties"].items():
        named = _of_names(setting)
        inner = next((part["$ref"] for part in (setting, named, *setting.get("anyOf", ())) if "$ref" in part), None)
        default = _default(name, setting, block, None if named else inner)
        yield f"`{prefix}{name}`", _takes(setting), default, " ".join(setting["description"].split())
        if inner is not None:
            below = f"{prefix}{name}.NAME." if named else f"{prefix}{name}."
            yield from _settings(schema["$defs"][inner.rpartition("/")[2]], schema, below)


def _of_names(setting: Mapping[str, Any]) -> Mapping[str, Any]:
    """What a setting holds by names that the user chooses; empty if it does not, or nothing is known of it."""
    named = setting.get("additionalProperties")
    return named if isinstance(named, dict) and "$ref" in named else {}


def _default(name: str, setting: Mapping[str, Any], block: Mapping[str, Any], inner: str | None) -> str:
    if name in block.get("required", ()):
        return "required"
    if "default" not in setting:
        return "its defaults" if inner else "empty"
    default = setting["default"]
    return f"`{default if isinstance(default, str) else json.dumps(default)}`"  # as a recipe would spell it


BOUNDS = {"minimum": "from {}", "exclusiveMinimum": "above {}", "maximum": "to {}", "exclusiveMaximum": "below {}"}


def _takes(setting: Mapping[str, Any]) -> str:
    """What a setting takes, in words."""
    if "anyOf" in setting:
        return " or ".join(map(_takes, setting["anyOf"]))
    if "$ref" in setting:
        return "block"
    if _of_names(setting):
        return "blocks by name"
    if "enum" in setting:
        return ", ".join(f"`{value}`" for value in setting["enum"])
    if "const" in setting:
        return f"`{setting['const']}`"
    if setting.get("type") == "array":
        return f"list of {_takes(setting.get('items', {}))}"
    bounds = [text.format(setting[key]) for key, text in BOUNDS.items() if key in setting]
    return " ".join([setting.get("type", "any"), *bounds]).replace("null", "`null`")


if __name__ == "__main__":
    Path(sys.argv[1]).write_text(page(), encoding="utf-8")
