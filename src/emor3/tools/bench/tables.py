"""Medians over the rounds and ratios within them, for people and as JSON."""

import statistics
from collections.abc import Sequence
from dataclasses import asdict
from typing import Any, Literal, get_args

from rich import box
from rich.table import Table

from emor3.runs.records import environment_stamp
from emor3.stats.format import count, hundredths, points, thousandths
from emor3.tools.bench.meter import StepCost
from emor3.tools.bench.ways import OURS, OURS_BARE, STRAIGHT, TRL, BenchSettings

Clock = Literal["seconds", "cpu_seconds", "update_cpu_seconds"]
CLOCKS: tuple[Clock, ...] = get_args(Clock)
RATIOS = {
    "emor3 / trl": (OURS, TRL),
    "emor3 without reflection / trl": (OURS_BARE, TRL),
    "straightforward / emor3": (STRAIGHT, OURS),
}
ADDED = {
    "reflection adds to a trl step": (OURS, OURS_BARE),
    "straightforward reflection adds to a trl step": (STRAIGHT, TRL),
}


def ratios(costs: dict[str, list[StepCost]], clock: Clock) -> dict[str, list[float]]:
    """The ratios of the times in each round, in which all ways took their turn."""
    seconds = {way: [getattr(cost, clock) for cost in steps] for way, steps in costs.items()}
    known = {name: pair for name, pair in RATIOS.items() if set(pair) <= seconds.keys()}
    found = {name: [a / b for a, b in zip(seconds[x], seconds[y], strict=True)] for name, (x, y) in known.items()}
    for name, (more, less) in ((name, pair) for name, pair in ADDED.items() if set(pair) <= seconds.keys()):
        rounds = zip(seconds[more], seconds[less], seconds[TRL], strict=True)
        found[name] = [(a - b) / whole for a, b, whole in rounds]
    return found


def middle(steps: Sequence[StepCost], name: str) -> float:
    """Median over the rounds."""
    return float(statistics.median(getattr(cost, name) for cost in steps))


def report(settings: BenchSettings, costs: dict[str, list[StepCost]]) -> dict[str, Any]:
    """Everything measured, as JSON."""
    return {
        "settings": asdict(settings),
        "environment": environment_stamp(),
        "costs": {way: [asdict(cost) for cost in steps] for way, steps in costs.items()},
        "ratios": {
            clock: {name: statistics.median(rounds) for name, rounds in ratios(costs, clock).items()}
            for clock in CLOCKS
        },
    }


def tables(costs: dict[str, list[StepCost]]) -> list[Table]:
    """Medians over the rounds, and the medians and ranges of the ratios within rounds."""
    rounds = len(costs[TRL])
    step = Table(box=box.SIMPLE_HEAD, padding=0, title=f"One training step, medians of {rounds} interleaved rounds")
    images = ("images\nencoded", "images\nprocessed")
    for heading in ("", "seconds", "CPU s", "update's\nCPU s", "positions", "forwards", *images, "peak\nMiB"):
        step.add_column(heading, justify="right" if heading else "left")
    for way, steps in costs.items():
        counts = (count(middle(steps, name)) for name in ("positions", "forwards", "encoded", "processed", "peak_mib"))
        times = (thousandths(middle(steps, clock)) for clock in CLOCKS)
        step.add_row(way, *times, *counts)
    ratio = Table(box=box.SIMPLE_HEAD, padding=0, title="Ratios within rounds: median (lowest to highest)")
    for heading in ("", "seconds", "CPU seconds", "update's\nCPU seconds"):
        ratio.add_column(heading, justify="right" if heading else "left")
    by_clock = [ratios(costs, clock) for clock in CLOCKS]
    for name in by_clock[0]:
        show = (lambda added: f"{points(added)}%") if name in ADDED else hundredths
        values = ([show(pick(found[name])) for pick in (statistics.median, min, max)] for found in by_clock)
        ratio.add_row(name, *(f"{median} ({lowest} to {highest})" for median, lowest, highest in values))
    return [step, ratio]
