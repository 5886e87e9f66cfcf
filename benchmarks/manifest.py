"""Time and memory of loading, checking and sampling a manifest of many rows; images are empty files, never opened.

    python benchmarks/manifest.py [ROWS]

Each step runs in a process of its own; memory is that process's peak, less that of one which only imports.
"""

import json
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path

LABELS = ("amusement", "awe", "contentment", "excitement", "anger", "disgust", "fear", "sadness")
STEPS = {
    "import": "import emor3.data, emor3.check, emor3.sampling",
    "load": "emor3.data.load_samples(folder)",
    "check": "emor3.check.check(folder, recipe, None)",
    "sample": "emor3.sampling.sample_data(folder, Path(folder + '_sample'), {'train': rows // 50})",
}


def write(folder: Path, rows: int) -> None:
    """A manifest as an import of EmoSet writes it, with votes and attributes."""
    (folder / "images").mkdir(parents=True)
    with (folder / "metadata.jsonl").open("w") as file:
        for index in range(rows):
            name = f"images/{index:07d}.jpg"
            (folder / name).touch()
            row = {
                "file_name": name,
                "label": LABELS[index % 8],
                "split": "test" if index % 5 == 0 else "train",
                "distribution": {label: 1 + (label == LABELS[index % 8]) for label in LABELS},
                "attributes": {"brightness": 0.5, "scene": "beach", "object": ["Dog", "Ball"]},
            }
            file.write(json.dumps(row) + "\n")


def measure(step: str, folder: str, rows: int) -> tuple[float, float]:
    """Seconds and peak MiB of one step in a process of its own."""
    done = subprocess.run(
        [sys.executable, __file__, step, folder, str(rows)], check=True, capture_output=True, text=True
    )
    seconds, mebibytes = done.stdout.split()
    return float(seconds), float(mebibytes)


def run(step: str, folder: str, rows: int) -> None:
    """One step, in this process."""
    import emor3.check
    import emor3.data
    import emor3.sampling
    from emor3.config import load_recipe
    from emor3.quickstart import RECIPE

    names = {"emor3": emor3, "folder": folder, "rows": rows, "Path": Path, "recipe": load_recipe(RECIPE, [])}
    start = time.perf_counter()
    exec(STEPS[step], names)
    print(time.perf_counter() - start, resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024)


def main(rows: int) -> None:
    with tempfile.TemporaryDirectory() as scratch:
        folder = str(Path(scratch) / "data")
        write(Path(folder), rows)
        _, base = measure("import", folder, rows)
        for step in ("load", "check", "sample"):
            seconds, peak = measure(step, folder, rows)
            print(f"{step} {rows} rows: {seconds:.1f} s, {peak - base:.0f} MiB above the imports")


if __name__ == "__main__":
    if len(sys.argv) > 2:
        run(sys.argv[1], sys.argv[2], int(sys.argv[3]))
    else:
        main(int(sys.argv[1]) if len(sys.argv) == 2 else 100_000)
