"""`emor3 bench growth`: how the costs of a step grow with completions, image size, labels and images.

One process, one way after the other, in CPU seconds: growth shows in a few steps, and a loaded machine does not
stretch them. On an accelerator they leave out its work: read the counts there.
"""

import statistics
import tempfile
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import transformers
from matplotlib.figure import Figure
from matplotlib.ticker import ScalarFormatter

from emor3.printing import say
from emor3.stats.format import count, hundredths
from emor3.storage.outputs import write_json
from emor3.tools.bench.meter import Meter, StepCost
from emor3.tools.bench.ways import OURS, STRAIGHT, TRL, BenchSettings, make_trainer

BASE = BenchSettings(pixels=64**2, labels=8, rounds=2)
AXES: dict[str, tuple[int, ...]] = {
    "completions": (2, 4, 8, 16),
    "pixels": (64**2, 128**2, 256**2),
    "images": (2, 4, 8, 16),
    "labels": (8, 16, 29),
}
"""What is varied, one at a time from the base."""
TITLES = {
    "completions": "completions per image (G)",
    "pixels": "image size (pixels)",
    "labels": "labels (K)",
    "images": "images a step (B)",
}


@dataclass(frozen=True)
class Point:
    """Median cost of a step of one way at one setting."""

    axis: str
    value: int
    way: str
    cost: dict[str, float]


class Collector:
    """Stands in for the pipe of a worker whose turn it always is."""

    def __init__(self) -> None:
        self.costs: list[StepCost] = []

    def send(self, message: Any) -> None:
        """Keep the costs, drop the signs of readiness."""
        if isinstance(message, StepCost):
            self.costs.append(message)

    def recv(self) -> str:
        """It is this way's turn."""
        return "go"


def grow(base: BenchSettings, on_points: Callable[[list[Point]], None]) -> list[Point]:
    """All points, shown whenever one is added; the base, which lies on every axis, is measured once."""
    transformers.logging.disable_progress_bar()
    measured: dict[tuple[str, BenchSettings], dict[str, float]] = {}
    points = []
    for axis, values in AXES.items():
        for value in values:
            varied: dict[str, Any] = {axis: value}
            settings = replace(base, **varied)
            for way in (TRL, STRAIGHT, OURS):
                if (way, settings) not in measured:
                    measured[way, settings] = _measure(way, settings)
                points.append(Point(axis, value, way, measured[way, settings]))
            on_points(points)
    return points


def _measure(way: str, settings: BenchSettings) -> dict[str, float]:
    collector = Collector()
    with tempfile.TemporaryDirectory() as folder:
        make_trainer(way, settings, folder, Meter(collector, settings.seed)).train()
    steps = [asdict(cost) for cost in collector.costs[1:]]
    return {name: statistics.median(step[name] for step in steps) for name in steps[0] if name != "peak_mib"}


def to_markdown(points: Sequence[Point]) -> str:
    """A table with one row for each setting and the three ways side by side."""
    ways = (TRL, STRAIGHT, OURS)
    lines = [
        "| varied | " + " | ".join(f"CPU s: {way}" for way in ways) + " | positions | images encoded |",
        "|---|" + "---:|" * (len(ways) + 2),
    ]
    for axis, value in dict.fromkeys((point.axis, point.value) for point in points):
        here = {point.way: point.cost for point in points if (point.axis, point.value) == (axis, value)}
        spent = " | ".join(hundredths(here[way]["cpu_seconds"]) for way in ways)
        counts = (" / ".join(count(here[way][name]) for way in ways) for name in ("positions", "encoded"))
        lines.append(f"| {TITLES[axis]}: {count(value)} | {spent} | {' | '.join(counts)} |")
    return "\n".join(lines) + "\n"


def plot(points: Sequence[Point], target: Path) -> None:
    """CPU seconds of a step along each axis, both axes logarithmic: a slope of one is a doubling with a doubling."""
    figure = Figure(figsize=(10, 3), layout="constrained")
    for axes, axis in zip(figure.subplots(1, len(AXES), sharey=True), AXES, strict=True):
        for way, marker in ((TRL, "s"), (STRAIGHT, "^"), (OURS, "o")):
            line = [point for point in points if (point.axis, point.way) == (axis, way)]
            values = [point.value for point in line]
            axes.plot(values, [point.cost["cpu_seconds"] for point in line], marker=marker, label=way)
            axes.set_xticks(values, [count(value) for value in values])
        axes.set(xscale="log", yscale="log", xlabel=TITLES[axis])
        axes.set_xticks(values, [count(value) for value in values])
        axes.minorticks_off()
        axes.yaxis.set_major_formatter(ScalarFormatter())
    figure.axes[0].set_ylabel("CPU seconds a step")
    figure.axes[0].legend(fontsize="small")
    figure.savefig(target, dpi=120)


def write(output: Path) -> None:
    """What the command does: growth.md, growth.json and growth.png in a folder, points written as they come."""
    output.mkdir(parents=True, exist_ok=True)

    def on_points(points: list[Point]) -> None:
        write_json(output / "growth.json", {"points": [asdict(point) for point in points]})
        (output / "growth.md").write_text(to_markdown(points), encoding="utf-8")
        say(f"{points[-1].axis} {points[-1].value:,}", error=True)

    points = grow(BASE, on_points)
    plot(points, output / "growth.png")
    say(to_markdown(points).removesuffix("\n"))
