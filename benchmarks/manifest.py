"""Time and memory of loading, checking and sampling a manifest of many rows, and of a training step on it.

    python benchmarks/manifest.py [ROWS]

Each step runs in a process of its own; memory is that process's peak, less that of one which only imports, and for
training less that of one which trains on 1,000 rows. All images are links to one picture.
"""

import json
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from PIL import Image

LABELS = ("amusement", "awe", "contentment", "excitement", "anger", "disgust", "fear", "sadness")
STEPS = {
    "import": "",
    "load": "emor3.data.folders.load_samples(folder)",
    "check": "emor3.data.check.check(folder, recipe.data, None)",
    "sample": "emor3.data.subsets.sample_data(folder, Path(folder + '_sample'), {'train': rows // 50})",
    "train": "one_step(recipe)",
}
FEW = 1_000


def write(folder: Path, rows: int) -> str:
    """A manifest as an import of EmoSet writes it, with votes and attributes."""
    (folder / "images").mkdir(parents=True)
    Image.new("RGB", (56, 56), "gray").save(folder / "picture.png")
    with (folder / "metadata.jsonl").open("w") as file:
        for index in range(rows):
            name = f"images/{index:07d}.png"
            (folder / name).symlink_to("../picture.png")
            row = {
                "file_name": name,
                "label": LABELS[index % 8],
                "split": "test" if index % 5 == 0 else "train",
                "distribution": {label: 1 + (label == LABELS[index % 8]) for label in LABELS},
                "attributes": {"brightness": 0.5, "scene": "beach", "object": ["Dog", "Ball"]},
            }
            file.write(json.dumps(row) + "\n")
    return str(folder)


def one_step(recipe: Any) -> None:
    """Train for an epoch that ends after its first step."""
    import emor3.training.run

    class First(emor3.training.run.StopOnNonFinite):
        def on_step_end(self, args: Any, state: Any, control: Any, **_: Any) -> None:
            control.should_training_stop = True

    emor3.training.run.StopOnNonFinite = First
    emor3.training.run.train(recipe)


def measure(step: str, folder: str, rows: int) -> tuple[float, float]:
    """Seconds and peak MiB of one step in a process of its own."""
    command = [sys.executable, __file__, step, folder, str(rows)]
    done = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True)
    seconds, mebibytes = done.stdout.split()[-2:]
    return float(seconds), float(mebibytes)


def run(step: str, folder: str, rows: int) -> None:
    """One step, in this process."""
    import emor3.data.check
    import emor3.data.folders
    import emor3.data.subsets
    from emor3.experiments.quickstart import RECIPE
    from emor3.runs.recipe import load_recipe

    changes = [f"data.train={folder}", f"output_dir={folder}_run", "cold_start=null", "grpo.max_steps=-1"]
    names = {"emor3": emor3, "folder": folder, "rows": rows, "Path": Path, "one_step": one_step}
    start = time.perf_counter()
    exec(STEPS[step], names | {"recipe": load_recipe(RECIPE, changes)})
    print(time.perf_counter() - start, resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024)


def main(rows: int) -> None:
    with tempfile.TemporaryDirectory() as scratch:
        folder, few = write(Path(scratch) / "data", rows), write(Path(scratch) / "few", FEW)
        _, imports = measure("import", few, FEW)
        _, short = measure("train", few, FEW)
        for step in ("load", "check", "sample", "train"):
            seconds, peak = measure(step, folder, rows)
            base, what = (short, f"training on {FEW} rows") if step == "train" else (imports, "the imports")
            print(f"{step} {rows} rows: {seconds:.1f} s, {peak - base:.0f} MiB above {what}", flush=True)


if __name__ == "__main__":
    if len(sys.argv) > 2:
        run(sys.argv[1], sys.argv[2], int(sys.argv[3]))
    else:
        main(int(sys.argv[1]) if len(sys.argv) == 2 else 100_000)
