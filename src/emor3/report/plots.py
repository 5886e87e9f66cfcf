"""Curves of training runs as inline SVG: runs that differ in their seed only are one line with a band.

Names and titles stay in HTML, where they are escaped; an SVG holds numbers only. Colours are CSS variables, so that
one drawing serves light and dark.
"""

import json
import re
from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from io import StringIO
from statistics import fmean
from typing import NamedTuple

import matplotlib as mpl
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from emor3.report.records import Run
from emor3.stats.seeds import seed_band

POINTS = 40
"""Points of a curve: steps are averaged in that many equal stretches of the run."""
COLOURS = 8
DASHES = ("", "6 3", "2 2", "8 3 2 3")
"""A line's colour is its number modulo COLOURS; its dashes change with each round of colours."""
HELD_OUT = "Held-out"
"""The section of what was evaluated during training; its points are evaluations, of which none is averaged."""
SECTIONS = {
    HELD_OUT: {
        "accuracy": "accuracy",
        "format": "format",
        "perception": "perception: step 1 names what was drawn",
    },
    "Reward": {
        "reward": "total reward",
        "rewards/accuracy/mean": "accuracy",
        "rewards/format/mean": "format",
        "rewards/consistency/mean": "consistency: yes on own image",
        "rewards/coherence/mean": "coherence",
    },
    "Behaviour": {
        "completions/mean_length": "completion length (tokens)",
        "entropy": "entropy (nats per token)",
        "kl": "KL to the reference policy",
        "frac_reward_zero_std": "groups of equal rewards",
        "dynamic_sampling/attempts": "dynamic sampling: draws per step",
    },
    "Canary": {},
}
"""Titles of metrics by section; further keys `rewards/…/mean` and `canary/…` join theirs under their own name."""
INK, LINE = "#0a0a0a", "#0b0b{:02x}"
"""Stand-ins that become `currentColor` and `var(--c…)`."""


class Point(NamedTuple):
    """A metric at one step of a group of runs."""

    step: float
    mean: float
    """Over runs."""
    runs: tuple[float, float]
    """Lowest and highest run."""
    low: float
    """95% interval of the mean over seeds; NaN for fewer than two."""
    high: float


@dataclass(frozen=True)
class Group:
    """Runs of one recipe that differ in their seed only."""

    name: str
    runs: Sequence[Run]

    def recorded(self, section: str = "") -> set[str]:
        """Metrics that any of the runs recorded."""
        return {key for run in self.runs for row in _rows(run, section) for key in row}

    def curve(self, key: str) -> list[Point]:
        """A metric over the steps; runs that stopped early are in the points they reached."""
        last = max((row["step"] for run in self.runs for row in run.metrics), default=0)
        width = max(1, -(-int(last) // POINTS))
        stretches: dict[int, dict[str, list[float]]] = defaultdict(lambda: defaultdict(list))
        for run in self.runs:
            for row in run.metrics:
                if key in row:
                    stretches[int(row["step"] - 1) // width][run.name].append(row[key])
        ordered = sorted(stretches.items())
        return [_point(min((place + 0.5) * width + 0.5, last), by_run) for place, by_run in ordered]

    def learning_curve(self, key: str) -> list[Point]:
        """A figure on held-out samples at each step at which any of the runs was evaluated."""
        steps: dict[float, dict[str, list[float]]] = defaultdict(dict)
        for run in self.runs:
            for row in run.evaluations:
                if key in row:
                    steps[row["step"]][run.name] = [row[key]]
        return [_point(step, by_run) for step, by_run in sorted(steps.items())]


def _rows(run: Run, section: str) -> Sequence[Mapping[str, float]]:
    return run.evaluations if section == HELD_OUT else run.metrics


def _point(step: float, by_run: Mapping[str, Sequence[float]]) -> Point:
    """The point of the values that some runs have at a step, or in a stretch of steps."""
    means = [fmean(values) for values in by_run.values()]
    mean, low, high = (float(part[0]) for part in seed_band(np.array(means)[:, None]))
    return Point(step, mean, (min(means), max(means)), low, high)


@dataclass(frozen=True)
class Panel:
    """One drawing with its title, and first and last value of each line for those who cannot see it."""

    title: str
    svg: str
    ends: Mapping[str, tuple[float, float]]


def group_runs(runs: Sequence[Run]) -> list[Group]:
    """Runs by recipe, in the order of their first run."""
    groups: dict[str, list[Run]] = {}
    for run in runs:
        settings = {key: value for key, value in run.config.items() if key not in ("seed", "output_dir")}
        groups.setdefault(json.dumps(settings, sort_keys=True) if settings else run.name, []).append(run)
    return [Group(_group_name(group), group) for group in groups.values()]


def _group_name(runs: Sequence[Run]) -> str:
    others = len(runs) - 1
    return runs[0].name if not others else f"{runs[0].name} and {others} more seed{'s' * (others > 1)}"


def curve_sections(groups: Sequence[Group]) -> dict[str, list[Panel]]:
    """Panels by section, of the metrics that some run recorded."""
    recorded = {key for group in groups for key in group.recorded()}
    sections = {name: dict(figures) for name, figures in SECTIONS.items()}
    for key in sorted(recorded):
        if key.startswith("rewards/") and key.endswith("/mean"):
            sections["Reward"].setdefault(key, key.removeprefix("rewards/").removesuffix("/mean"))
        elif key.startswith("canary/"):
            sections["Canary"][key] = key.removeprefix("canary/").replace("_", " ")
    drawn: dict[str, list[Panel]] = {}
    for name, figures in sections.items():
        known = {key for group in groups for key in group.recorded(name)}
        if panels := [_panel(name, title, key, groups) for key, title in figures.items() if key in known]:
            drawn[name] = panels
    return drawn


def _panel(section: str, title: str, key: str, groups: Sequence[Group]) -> Panel:
    held_out = section == HELD_OUT
    curves = {n: group.learning_curve(key) if held_out else group.curve(key) for n, group in enumerate(groups)}
    ends = {groups[place].name: (points[0].mean, points[-1].mean) for place, points in curves.items() if points}

    def draw(axes: Axes) -> None:
        for place, points in curves.items():
            _line(axes, place, [point.step for point in points], [point.mean for point in points])
            axes.update_datalim([(point.step, value) for point in points for value in point.runs])
        axes.autoscale_view()
        limits = axes.get_ylim()  # of the runs: the band of two seeds would leave nothing of the lines to see
        for place, points in curves.items():
            if len(groups[place].runs) > 1:
                steps, lows, highs = ([getattr(point, part) for point in points] for part in ("step", "low", "high"))
                axes.fill_between(steps, lows, highs, color=_colour(place), alpha=0.2, linewidth=0)
        axes.set_ylim(limits)
        axes.set_xlabel("step")
        axes.xaxis.set_major_locator(MaxNLocator("auto", integer=True))
        if held_out or key.startswith(("rewards/", "canary/")) or key in ("reward", "frac_reward_zero_std"):
            axes.set_ylim(min(limits[0], 0), max(limits[1], 1.02))

    return Panel(title, drawing(f"{section} {key}", draw, (3.1, 2.1)), ends)


def reliability_diagram(data: str, lines: Mapping[int, Sequence[Sequence[float]]]) -> str:
    """Accuracy against confidence; `lines` holds [bins][confidence sum, hits, count] by the number of its line."""

    def draw(axes: Axes) -> None:
        axes.plot([0, 1], [0, 1], color=INK, alpha=0.4, linewidth=1)
        for place, cells in lines.items():
            bins = [(confidence / count, right / count, count) for confidence, right, count in cells if count]
            sure, right, counts = zip(*bins, strict=True) if bins else ([], [], [])
            _line(axes, place, sure, right)
            axes.scatter(sure, right, s=[6 + 60 * count / sum(counts) for count in counts], color=_colour(place))
        axes.set(xlabel="confidence", ylabel="accuracy", xlim=(0, 1), ylim=(-0.02, 1.02))

    return drawing(f"reliability {data}", draw, (3.1, 2.8))


def _line(axes: Axes, place: int, x: Sequence[float], y: Sequence[float]) -> None:
    (line,) = axes.plot(x, y, color=_colour(place), linewidth=1.6)
    if dashes := DASHES[place // COLOURS % len(DASHES)]:
        line.set_dashes([float(length) for length in dashes.split()])


def _colour(place: int) -> str:
    return LINE.format(place % COLOURS)


def drawing(salt: str, draw: Callable[[Axes], None], size: tuple[float, float]) -> str:
    """One pair of axes as an `<svg>` element for HTML; the salt keeps its ids apart from those of other drawings."""
    style = {
        "svg.fonttype": "none",
        "svg.hashsalt": salt,
        "font.size": 9,
        "axes.spines.top": False,
        "axes.spines.right": False,
        "axes.grid": True,
        "grid.alpha": 0.15,
        **dict.fromkeys(("text.color", "axes.edgecolor", "axes.labelcolor", "grid.color"), INK),
        **dict.fromkeys(("xtick.color", "ytick.color"), INK),
    }
    with mpl.rc_context(style):
        figure = Figure(figsize=size, layout="constrained")
        draw(figure.subplots())
        file = StringIO()
        metadata = dict.fromkeys(("Date", "Creator", "Format", "Type"))
        figure.savefig(file, format="svg", transparent=True, metadata=metadata)
    svg = re.sub(r'<g id="[A-Za-z0-9_.]+">', "<g>", file.getvalue()[file.getvalue().index("<svg") :])
    svg = re.sub(r"#0b0b(\d\d)", lambda match: f"var(--c{int(match[1])})", svg.replace(INK, "currentColor"))
    return re.sub(r'width="[\d.]+pt" height="[\d.]+pt"', 'aria-hidden="true" focusable="false"', svg, count=1)
