"""Figures of the grid's points (medians of ratios within rounds), their tables, and what they say of the targets."""

import statistics
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from emor3.stats.format import count, hundredths, markdown_table, percent_value
from emor3.tools.bench.updates import CACHE, PACKED, SEPARATE
from emor3.tools.bench.ways import EVERY, OURS, TRL

FASTEST_WITHIN = 1.1
"""How much more CPU time than the fastest update the chosen one may take."""
GROWTH = 1.1
"""How much the ratio of a larger model may exceed the embedded one's at the same point, to hold."""
NONE = "-"
HEADINGS = (
    *("visual tokens", "G", "B", "checkpointing", "model", "processes", "rounds", "TRL, CPU s"),
    *("packed", "cache", "TRL's way", "chosen", "of the fastest update"),
    *("with reflection", "reflection", "update", "positions", "peak memory", "beyond libraries"),
)
LEGEND = (
    "Ratios are of CPU seconds to those of TRL's step without reflection in the same round, medians over the rounds. "
    "*packed*, *cache* and *TRL's way* are our step without reflection with its update taken in that way, *chosen* is "
    "the way that it takes by itself, *of the fastest update* that update's CPU seconds over the fastest one's; *with "
    "reflection* is our step, *reflection* its share (rewards, of TRL's step), *update* our update over TRL's, "
    "*positions* the count (tokens through the language model, ours with reflection over TRL's). Under checkpointing "
    "and on shards no cache can be kept. Larger models and two processes take only the way that is chosen."
)


@dataclass(frozen=True)
class Figures:
    """A point. Ratios are of CPU seconds to those of TRL's step without reflection, where nothing else is said."""

    tokens: int
    completions: int
    images: int
    checkpointing: bool
    model: str
    processes: int
    rounds: int
    trl_seconds: float
    steps: dict[str, float]
    """Our step without reflection by the way of its update, as far as the ways were tried."""
    chosen: str
    of_fastest: float | None
    """CPU seconds of the chosen update over those of the fastest; None if they were not tried."""
    reflecting: float
    """Our step with reflection."""
    reflection: float
    """Rewards in our step with reflection."""
    update: float
    """Our update over TRL's."""
    positions: float
    """The count: positions of our step with reflection over those of TRL's without."""
    peak: float
    """Peak memory over TRL's, libraries included."""
    peak_beyond: float
    """The same without what the processes had taken before training."""


def figures(found: Mapping[str, Any]) -> Figures:
    """Figures of a point as it is kept."""
    point, settings, costs = found["point"], found["settings"], found["costs"]
    trl, ours, every = costs[TRL], costs[OURS], costs.get(EVERY, [])

    def ratio(of: Callable[[Any], float], to: Callable[[Any], float]) -> float:
        return statistics.median(of(a) / to(b) for a, b in zip(ours, trl, strict=True))

    return Figures(
        tokens=point["tokens"],
        completions=point["completions"],
        images=settings["images"],
        checkpointing=point["checkpointing"],
        model=point["size"],
        processes=point["processes"],
        rounds=len(trl),
        trl_seconds=statistics.median(cost["cpu_seconds"] for cost in trl),
        steps=_steps(every, trl),
        chosen=statistics.mode(cost["chosen"] for cost in every) if every else "",
        of_fastest=statistics.median(_of_fastest(cost) for cost in every) if every else None,
        reflecting=ratio(lambda a: a["cpu_seconds"], lambda b: b["cpu_seconds"]),
        reflection=ratio(lambda a: a["reward_cpu_seconds"], lambda b: b["cpu_seconds"]),
        update=ratio(lambda a: a["update_cpu_seconds"], lambda b: b["update_cpu_seconds"]),
        positions=ratio(lambda a: a["positions"], lambda b: b["positions"]),
        peak=ours[-1]["peak_mib"] / trl[-1]["peak_mib"],
        peak_beyond=_beyond(ours[-1]) / _beyond(trl[-1]),
    )


def _steps(every: Sequence[Any], trl: Sequence[Any]) -> dict[str, float]:
    """A step by each way is the step as it was, with the seconds of this way's update in place of the chosen one's."""
    ways = [way for way in (PACKED, CACHE, SEPARATE) if all(way in cost["updates"] for cost in every)] if every else []
    return {
        way: statistics.median(
            (a["cpu_seconds"] - a["updates"][a["chosen"]] + a["updates"][way]) / b["cpu_seconds"]
            for a, b in zip(every, trl, strict=True)
        )
        for way in ways
    }


def _of_fastest(cost: Mapping[str, Any]) -> float:
    return float(cost["updates"][cost["chosen"]] / min(cost["updates"].values()))


def _beyond(cost: Mapping[str, Any]) -> float:
    return float(cost["peak_mib"] - cost["libraries_mib"])


def cells(of: Figures) -> tuple[str, ...]:
    """A row of the table, as HEADINGS names it."""
    return (
        *(count(of.tokens), str(of.completions), str(of.images), "yes" if of.checkpointing else "no", of.model),
        *(str(of.processes), str(of.rounds), hundredths(of.trl_seconds)),
        *(hundredths(of.steps[way]) if way in of.steps else NONE for way in (PACKED, CACHE, SEPARATE)),
        *(of.chosen or NONE, NONE if of.of_fastest is None else hundredths(of.of_fastest)),
        *(hundredths(of.reflecting), percent_value(of.reflection) + "%", hundredths(of.update)),
        *(hundredths(of.positions), hundredths(of.peak), hundredths(of.peak_beyond)),
    )


def verdicts(points: Mapping[str, Figures]) -> list[tuple[str, str, str, str]]:
    """Each target: what it is of, its limit, what was measured, and whether it holds."""

    def at(name: str, of: Callable[[Figures], float]) -> float | None:
        return of(points[name]) if name in points else None

    def worst(of: Callable[[Figures], float | None]) -> float | None:
        known = [value for point in points.values() if (value := of(point)) is not None]
        return max(known, default=None)

    long, middle, short = (f"{tokens}x8-checkpointing" for tokens in (1024, 64, 16))
    where = "visual tokens, G = 8"
    rows: list[tuple[str, float, float | None]] = [
        (f"update, 1,024 {where}, checkpointing", 0.35, at(long, lambda p: p.update)),
        (f"step with reflection, 1,024 {where}, checkpointing", 0.45, at(long, lambda p: p.reflecting)),
        (f"step with reflection, 64 {where}, checkpointing", 0.6, at(middle, lambda p: p.reflecting)),
        (f"step with reflection, 16 {where}", 0.48, at("16x8", lambda p: p.reflecting)),
        (f"step with reflection, 16 {where}, checkpointing", 0.48, at(short, lambda p: p.reflecting)),
        (f"peak memory, 1,024 {where}, checkpointing", 0.6, at(long, lambda p: p.peak)),
        (f"step with reflection, 256 {where}, two FSDP2 processes", 0.6, at("256x8-fsdp2", lambda p: p.reflecting)),
        (f"reflection of TRL's step, the most of {len(points)} points", 0.1, worst(lambda p: p.reflection)),
        ("chosen update over the fastest, the most of all points", FASTEST_WITHIN, worst(lambda p: p.of_fastest)),
        ("step of a larger model over the embedded one's ratio, the most", GROWTH, _growth(points)),
    ]
    return [
        (name, f"at most {hundredths(limit)}", NONE, "not measured")
        if value is None
        else (name, f"at most {hundredths(limit)}", hundredths(value), "holds" if value <= limit else "missed")
        for name, limit, value in rows
    ]


def _growth(points: Mapping[str, Figures]) -> float | None:
    """Most that the ratio of a larger model exceeds the embedded one's at the same point."""
    known = {
        (p.tokens, p.completions, p.checkpointing): p
        for p in points.values()
        if (p.model, p.processes) == ("embedded", 1)
    }
    larger = [p for p in points.values() if p.model != "embedded"]
    pairs = [(p, known.get((p.tokens, p.completions, p.checkpointing))) for p in larger]
    return max((p.reflecting / small.reflecting for p, small in pairs if small is not None), default=None)


def to_markdown(points: Mapping[str, Figures], wanted: int) -> str:
    """The page: the targets, and a row for each point."""
    return "\n".join(
        [
            "# The grid",
            "",
            f"Written by `python benchmarks/grid.py`: {len(points)} of {wanted} points are measured. {LEGEND}",
            "",
            "## Targets",
            "",
            markdown_table(("of TRL's step without reflection", "target", "measured", ""), verdicts(points)),
            "## Points",
            "",
            markdown_table(HEADINGS, map(cells, points.values())),
        ]
    )
