"""What a step costs against TRL's over image sizes, G and gradient checkpointing; larger models; two sharded processes.

Each point compares TRL's step without reflection, ours with it, and ours without it, whose update is taken by each of
our ways, step by step in turn (as `emor3 bench step`). Points come in order of importance; each is kept in
DIR/grid.json as it is done, and the tables DIR/grid.md and DIR/grid.csv are written anew. A second call goes on.
Run: python benchmarks/grid.py [DIR] [--minutes 28] [--workers 2] [--points '64x8*' ...] [--rounds 3]
"""

import argparse
import csv
import json
import os
import tempfile
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass
from fnmatch import fnmatch
from itertools import product
from pathlib import Path
from threading import Lock
from typing import Any

from emor3.printing import say
from emor3.runs.records import environment_stamp
from emor3.storage.outputs import write_json, write_whole
from emor3.tools.bench.rounds import bench_step
from emor3.tools.bench.ways import EVERY, OURS, TRL, BenchSettings
from grid_tables import HEADINGS, cells, figures, to_markdown, verdicts
from larger import SIZES, write_larger

TOKENS_SIDE = {16: 64, 64: 128, 256: 256, 1024: 512}
"""Side in pixels of a square image of so many visual tokens of the embedded model."""
PROMPTS = {16: 8, 64: 4, 256: 2, 1024: 1}
"""Prompts a step (B), so that a point takes about a minute or two."""
COMPLETIONS = (8, 16, 4)
TARGETS_FIRST = ((1024, 8, True), (64, 8, True), (16, 8, True), (256, 8, True), (16, 8, False))
MOST_ROUNDS = {"100M": 1}
"""Where a step takes minutes, which noise hardly moves."""
MAX_TOKENS = 150
EMBEDDED = "embedded"


@dataclass(frozen=True)
class Point:
    """One setting. Its name: visual tokens x G, then what differs from the embedded model in one process.

    >>> Point(256, 8, checkpointing=True, size="20M").name
    '256x8-checkpointing-20M'
    """

    tokens: int
    completions: int
    checkpointing: bool = False
    size: str = EMBEDDED
    processes: int = 1

    @property
    def name(self) -> str:
        more = ("checkpointing" * self.checkpointing, self.size.replace(EMBEDDED, ""), "fsdp2" * (self.processes > 1))
        return "-".join([f"{self.tokens}x{self.completions}", *filter(None, more)])

    @property
    def ways(self) -> tuple[str, ...]:
        """The ways compared: each update of ours only where the table shows it."""
        return (TRL, OURS, EVERY) if self.size == EMBEDDED and self.processes == 1 else (TRL, OURS)

    def settings(self, model: str, rounds: int) -> BenchSettings:
        """The work of a step; larger models get one prompt, processes one each at least."""
        return BenchSettings(
            model=model,
            images=1 if self.size != EMBEDDED else max(PROMPTS[self.tokens], self.processes),
            completions=self.completions,
            max_tokens=MAX_TOKENS,
            pixels=TOKENS_SIDE[self.tokens] ** 2,
            checkpointing=self.checkpointing,
            rounds=min(rounds, MOST_ROUNDS.get(self.size, rounds)),
            processes=self.processes,
        )


def all_points() -> list[Point]:
    """Every point: targets, then what is cheap of the rest, then the largest models and the longest images."""
    first = [Point(*target) for target in TARGETS_FIRST]
    middle, largest = ([Point(tokens, 8, True, size) for tokens in (64, 16, 256)] for size in SIZES)
    rest = [Point(*place) for place in product(TOKENS_SIDE, COMPLETIONS, (True, False))]
    rest.sort(key=lambda point: point.tokens * point.completions)
    short, long = ([point for point in rest if (point.tokens == max(TOKENS_SIDE)) is last] for last in (False, True))
    return list(dict.fromkeys([*first, Point(256, 8, processes=2), *middle, *short, *largest, *long]))


def chosen(points: Iterable[Point], patterns: Sequence[str], size: str | None, processes: int | None) -> list[Point]:
    """The points that the command line asks for."""
    return [
        point
        for point in points
        if any(fnmatch(point.name, pattern) for pattern in patterns)
        and size in (None, point.size)
        and processes in (None, point.processes)
    ]


class Results:
    """Measured points on the disk, by name; tables are written anew with each."""

    def __init__(self, folder: Path) -> None:
        self.folder, self.lock = folder, Lock()
        folder.mkdir(parents=True, exist_ok=True)
        file = folder / "grid.json"
        self.points: dict[str, Any] = json.loads(file.read_text(encoding="utf-8"))["points"] if file.exists() else {}

    def lacks(self, point: Point, rounds: int) -> bool:
        """Whether a point was not measured yet, or as another work or in fewer rounds."""
        found = self.points.get(point.name)
        if found is None:
            return True
        wanted = asdict(point.settings(point.size, rounds))
        return (
            found["settings"] | {"rounds": 0} != wanted | {"rounds": 0}
            or found["settings"]["rounds"] < wanted["rounds"]
        )

    def add(self, point: Point, settings: BenchSettings, costs: Mapping[str, Sequence[Any]]) -> None:
        """Keep the costs of a point."""
        kept = {way: [asdict(cost) for cost in steps] for way, steps in costs.items()}
        with self.lock:
            self.points[point.name] = {
                "point": asdict(point),
                "settings": asdict(settings) | {"model": point.size},
                "environment": environment_stamp(),
                "costs": kept,
            }
            self.write()

    def write(self) -> None:
        """All files."""
        order = {point.name: place for place, point in enumerate(sorted(all_points(), key=_place))}
        points = {name: self.points[name] for name in sorted(self.points, key=lambda name: order.get(name, len(order)))}
        write_json(self.folder / "grid.json", {"points": points})
        shown = {name: figures(found) for name, found in points.items()}
        write_whole(self.folder / "grid.md", to_markdown(shown, len(order)))
        with (self.folder / "grid.csv").open("w", encoding="utf-8", newline="") as file:
            rows = csv.writer(file)
            rows.writerow(HEADINGS)
            rows.writerows(map(cells, shown.values()))


def _place(point: Point) -> tuple[Any, ...]:
    return (
        point.processes,
        [EMBEDDED, *SIZES].index(point.size),
        not point.checkpointing,
        point.tokens,
        point.completions,
    )


Measure = Callable[[Point, BenchSettings, Callable[[int], None]], Mapping[str, Sequence[Any]]]


def measure(point: Point, settings: BenchSettings, on_round: Callable[[int], None]) -> Mapping[str, Sequence[Any]]:
    """Costs of every round of every way of a point."""
    return bench_step(settings, on_round, point.ways)


def run(
    points: Sequence[Point],
    results: Results,
    models: Mapping[str, str],
    options: argparse.Namespace,
    do: Measure = measure,
) -> None:
    """Measure what is lacking, so many points at a time; those of several processes alone, after the others."""
    start = time.monotonic()
    left = [point for point in points if results.lacks(point, options.rounds)]
    say(f"{len(points) - len(left)} of {len(points)} points are there already", error=True)
    together = [point for point in left if point.processes == 1]
    spent: list[float] = []

    def one(point: Point) -> None:
        begun = time.monotonic()
        if options.minutes is not None and begun - start > 60 * options.minutes:
            return
        settings = point.settings(models.get(point.size, point.size), options.rounds)
        results.add(point, settings, do(point, settings, lambda done: say(f"{point.name}: round {done}", error=True)))
        spent.append(time.monotonic() - begun)
        share = sum(spent) / len(spent) * (len(left) - len(spent)) / (options.workers if point in together else 1)
        say(f"{point.name}: {spent[-1]:.0f} s; {len(left) - len(spent)} left, about {share / 60:.0f} min", error=True)

    with ThreadPoolExecutor(options.workers) as pool:
        for _ in pool.map(one, together):
            pass
    for point in left:
        if point not in together:
            one(point)


def options_of(arguments: Sequence[str] | None = None) -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path, nargs="?", default=Path("docs/performance"))
    parser.add_argument("--points", nargs="+", default=["*"], metavar="NAME", help="names or patterns, as '64x8*'")
    parser.add_argument("--model-size", choices=[EMBEDDED, *SIZES], help="only points of this model")
    parser.add_argument("--processes", type=int, choices=[1, 2], help="only points of so many processes")
    parser.add_argument("--rounds", type=int, default=2, help="after one to warm up")
    parser.add_argument("--minutes", type=float, help="start no further point after this time")
    parser.add_argument("--workers", type=int, default=1, help="points at a time; each takes one core")
    parser.add_argument("--work", type=Path, help="folder for larger models (0.5 GB)")
    return parser.parse_args(arguments)


def main(arguments: Sequence[str] | None = None, do: Measure = measure) -> None:
    """Measure, write, and hold against the targets."""
    options = options_of(arguments)
    os.environ.setdefault("OMP_NUM_THREADS", "1")
    points = chosen(all_points(), options.points, options.model_size, options.processes)
    results = Results(options.folder)
    with tempfile.TemporaryDirectory(dir=options.work) as folder:
        sizes = {point.size for point in points if point.size in SIZES and results.lacks(point, options.rounds)}
        models = {size: str(Path(folder) / size) for size in sizes}
        for size, path in models.items():
            say(f"{size}: {write_larger(size, Path(path)):,} parameters", error=True)
        run(points, results, models, options, do)
    results.write()
    if left := sum(results.lacks(point, options.rounds) for point in points):
        say(f"{left} points are not measured yet: the same command goes on", error=True)
    for name, limit, found, holds in verdicts({name: figures(kept) for name, kept in results.points.items()}):
        say(f"{name}: {found} (target {limit}): {holds}")


if __name__ == "__main__":
    main()
