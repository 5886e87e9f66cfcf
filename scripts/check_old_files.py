"""Check that this code reads what older code wrote: `python scripts/check_old_files.py [COMMIT]`, 3 minutes of a core.

The old commit makes a run of two steps, two evaluations and a plan's folder; this code then resumes the run, evaluates
its policy (which must give the very same predictions), compares, reports, shares, exports and goes on with the plan.
Ends with status 1 at the first step that fails. Settings and data are those of the old commit, so that a later world or
checkpoint of the package changes nothing.
"""

import io
import json
import os
import subprocess
import sys
import tarfile
import tempfile
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[1]
FLAT = "10b238b5cc53bfb65f6de4a548f24a4ee59be1e7"
"""The last commit with all modules in one folder."""

GRPO = {
    **{"max_steps": 2, "save_steps": 1, "num_generations": 2, "per_device_train_batch_size": 4, "beta": 0.01},
    **{"max_completion_length": 64, "lr_scheduler_type": "constant", "gradient_checkpointing": False},
}


class Commands:
    """`emor3` of one source tree, run in the folder that holds all that is made."""

    def __init__(self, name: str, source: Path, folder: Path) -> None:
        self.name, self.folder = name, folder
        self.environment = os.environ | {
            "PYTHONPATH": str(source / "src"),
            "EMOR3_CACHE": str(folder / f"{name} cache"),
        }

    def __call__(self, *arguments: str) -> None:
        """Run one command; if it fails, print what it printed and exit with status 1."""
        print(f"{self.name}: emor3 {' '.join(arguments)}", flush=True)
        command = [sys.executable, "-m", "emor3", *arguments]
        done = subprocess.run(command, cwd=self.folder, env=self.environment, capture_output=True, text=True)
        if done.returncode:
            print(f"{done.stdout}{done.stderr}\nfailed with status {done.returncode}: {self.name}: {arguments[0]}")
            sys.exit(1)


def check_out(commit: str, folder: Path) -> None:
    """The files of a commit, without a trace in the repository."""
    archive = subprocess.run(["git", "archive", commit], cwd=ROOT, stdout=subprocess.PIPE)
    if archive.returncode:
        sys.exit(f"git cannot read commit {commit}")
    with tarfile.open(fileobj=io.BytesIO(archive.stdout)) as files:
        files.extractall(folder, filter="data")


def write_settings(folder: Path, checkpoint: Path) -> None:
    """recipe.yaml and plan.yaml (JSON is YAML), of which `--quick` has one method and the whole one more."""
    base = {"model": {"path": str(checkpoint)}, "grpo": GRPO}
    recipe = {**base, "output_dir": "run", "data": {"train": "data"}, "judge": {"calibration": 4}}
    plan = {
        **{"output_dir": "plan", "seeds": [0], "domains": ["data"], "tests": ["data"], "reference": "vanilla"},
        "evaluation": {"max_new_tokens": 64},
        "base": base,
        "methods": {"vanilla": {"grpo": None}, "emo_r3": {}, "grpo": {"reward": {"reflective": 0.0}}},
        "quick": {"methods": ["vanilla", "emo_r3"]},
    }
    for name, content in (("recipe.yaml", recipe), ("plan.yaml", plan)):
        (folder / name).write_text(json.dumps(content), encoding="utf-8")


def predictions(folder: Path) -> list[dict[str, Any]]:
    """The lines of an evaluation."""
    return [json.loads(line) for line in (folder / "predictions.jsonl").read_text("utf-8").splitlines()]


def alike(old: dict[str, Any], new: dict[str, Any]) -> bool:
    """Whether two lines hold the same in each key that both have: some came later, some are gone."""
    return {"completion", "sampled"} <= (both := old.keys() & new.keys()) and all(old[key] == new[key] for key in both)


def expect(holds: bool, claim: str) -> None:
    """Exit with status 1 if a claim does not hold."""
    if not holds:
        sys.exit(f"does not hold: {claim}")


def main(commit: str) -> None:
    """Make everything by the old commit, then use it by this code."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        check_out(commit, folder / "source")
        old, new = Commands("old", folder / "source", folder), Commands("new", ROOT, folder)
        checkpoint = folder / "source/src/emor3/tiny/checkpoint"
        write_settings(folder, checkpoint)
        evaluation = ("--data", "data", "--samples", "2", "--max-new-tokens", "64", "--output")

        old("data", "sample", "embedded:scenes8", "data", "--size", "train=16", "--size", "test=8", "--copy")
        old("train", "recipe.yaml")
        old("evaluate", "--model", "run/final", *evaluation, "before")
        old("evaluate", "--model", str(checkpoint), *evaluation, "start")
        old("reproduce", "plan.yaml", "--quick")
        finished = {path: path.read_bytes() for path in folder.glob("plan/**/results.json")}
        expect(len(finished) == 2, "the old plan's folder holds two evaluations")

        new("evaluate", "--model", "run/final", *evaluation, "after")
        both = zip(predictions(folder / "before"), predictions(folder / "after"), strict=True)
        expect(all(alike(*pair) for pair in both), "old and new code predict the same")
        new("evaluate", "--from", "before", "--output", "again")
        new("compare", "before", "after", "start")
        new("report", "run", "before", "after", "start", "--output", "report.html")
        new("share", "before", "shared")
        new("export", "run", "exported", "--evaluation", "before")
        new("export", "run/checkpoints/checkpoint-1", "exported_checkpoint")
        new("train", "run", "--resume", "--set", "grpo.max_steps=3")
        steps = [json.loads(line)["step"] for line in (folder / "run/metrics.jsonl").read_text("utf-8").splitlines()]
        expect(steps == [1, 2, 3], f"the resumed run has each of three steps once, not {steps}")
        new("reproduce", "plan.yaml")
        expect(
            all(path.read_bytes() == content for path, content in finished.items()), "finished cells were left alone"
        )
        expect(len(list(folder.glob("plan/**/results.json"))) == 3, "the plan went on with its third evaluation")
    print(f"everything that {commit[:9]} wrote is read, resumed, compared and reported")


if __name__ == "__main__":
    main(*sys.argv[1:] or [FLAT])
