"""Sections of the reproduction report on runs: recipes, seeds, the judge's trial, parts over steps, failures, cost."""

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from statistics import fmean
from typing import Any

import yaml

from emor3.errors import UserError
from emor3.report.paper.evaluated import fenced, line, table
from emor3.report.plots import group_runs
from emor3.report.records import Run
from emor3.runs.directory import ENVIRONMENT, FINAL, JUDGE
from emor3.runs.records import read_json
from emor3.stats.format import count, hundredths, tenths, thousandths

STRETCHES = 5
"""Equal parts of a run over which the parts of its reward are averaged."""
SHOWN = ("reward", "rewards/", "completions/mean_length", "entropy", "kl", "frac_reward_zero_std", "canary/")
"""Metrics of the table, by name or by what the name begins with."""


def method_section(runs: Sequence[Run]) -> Iterator[str]:
    """The recipe of each method as it was resolved, with its seeds and the checksums of its training data."""
    for group in group_runs(runs):
        seeds = ", ".join(str(run.config.get("seed", "?")) for run in group.runs)
        yield f"### {line(group.name)}\n\nSeeds: {seeds} ({len(group.runs)} runs)."
        if len(group.runs) < 3:
            yield "Fewer than three seeds: what was found may be luck of one run."
        sums = {str(found) for run in group.runs for found in _environment(run).get("data") or ()}
        if sums:
            yield f"SHA-256 of the training manifests: {', '.join(f'`{found}`' for found in sorted(sums))}."
        recipe = {key: value for key, value in group.runs[0].config.items() if key not in ("seed", "output_dir")}
        yield fenced(yaml.safe_dump(recipe, sort_keys=False, allow_unicode=True).rstrip())


def trial_section(runs: Sequence[Run]) -> Iterator[str]:
    """What the judge could tell before the first step: its AUC on swapped descriptions and inside a group."""
    rows = []
    for run in runs:
        found = _record(run.folder / JUDGE)
        if found:
            numbers = (found.get(name) for name in ("auc", "yes_own", "yes_swapped", "auc_within"))
            shown = ("" if number is None else hundredths(float(number)) for number in numbers)
            rows.append((run.name, *shown, str(found.get("n", "")), str(found.get("mixed_groups", ""))))
    if rows:
        headings = ("run", "AUC", "yes, own image", "yes, another", "AUC in groups", "n images", "mixed groups")
        yield "Before the first step the judge was tried on the policy's own descriptions:"
        yield table(headings, rows)
    else:
        yield "No run tried its judge before the first step."


def curve_section(runs: Sequence[Run]) -> Iterator[str]:
    """Parts of the reward, length and canaries of each method over its steps, each a mean of runs and steps."""
    for group in group_runs(runs):
        rows = [row for run in group.runs for row in run.metrics]
        names = [name for name in _names(rows) if name.startswith(SHOWN) and not name.endswith("/std")]
        last = max((row["step"] for row in rows), default=0)
        if names and last:
            parts = [(last * part / STRETCHES, last * (part + 1) / STRETCHES) for part in range(STRETCHES)]
            heads = [f"steps {int(low) + 1} to {int(high)}" for low, high in parts]
            yield f"{line(group.name)}, mean over {len(group.runs)} runs:"
            yield table(("metric", *heads), [(name, *(_mean(rows, name, *part) for part in parts)) for name in names])


def _names(rows: Sequence[Mapping[str, float]]) -> list[str]:
    return list(dict.fromkeys(name for row in rows for name in row))


def _mean(rows: Sequence[Mapping[str, float]], name: str, low: float, high: float) -> str:
    values = [row[name] for row in rows if low < row["step"] <= high and name in row]
    return thousandths(fmean(values)) if values else ""


def failure_section(runs: Sequence[Run], faults: Sequence[str]) -> Iterator[str]:
    """Runs that did not come to their end, and records that could not be read."""
    stopped = [run for run in runs if not (run.folder / FINAL).is_dir()]
    for run in stopped:
        steps = int(max((row["step"] for row in run.metrics), default=0))
        yield f"- {line(run.name)}: no final policy after {steps} steps"
    for fault in faults:
        yield f"- {line(fault)}"
    if not stopped and not faults:
        yield "None under the folders of this report. Runs that were deleted are not known here: say if there were any."


def cost_section(runs: Sequence[Run]) -> Iterator[str]:
    """Hours of each run's steps and the machine; what cold start, evaluation and failed tries took is not recorded."""
    rows, total = [], 0.0
    for run in runs:
        environment = _environment(run)
        devices = [str(name) for name in environment.get("accelerators") or ()]
        hours = sum(row.get("step_time", _phases(row)) for row in run.metrics) / 3600
        total += hours * max(len(devices), 1)
        machine = ", ".join(devices) or f"CPU, {environment.get('cores', '?')} cores"
        rows.append((run.name, machine, count(len(run.metrics)), tenths(hours)))
    yield table(("run", "machine", "steps", "hours of steps"), rows)
    yield f"{tenths(total)} device hours in all, steps of training alone: cold start and evaluation come on top."


def _phases(row: Mapping[str, float]) -> float:
    return sum(value for name, value in row.items() if name.startswith("time/"))


def environment_section(environments: Sequence[Mapping[str, Any]]) -> Iterator[str]:
    """Versions that runs and evaluations were made with, each set of them once."""
    for found in dict.fromkeys(map(_versions, environments)):
        yield f"- {line(found)}"


def _versions(environment: Mapping[str, Any]) -> str:
    packages = ", ".join(f"{name} {number}" for name, number in (environment.get("packages") or {}).items())
    commit = environment.get("commit")
    return (
        f"emor3 {environment.get('emor3', '?')}{f' at {commit}' if commit else ''}, Python "
        f"{environment.get('python', '?')}, {packages or 'packages unknown'}"
    )


def environments(runs: Sequence[Run]) -> list[Mapping[str, Any]]:
    """What each run recorded of its machine and versions."""
    return [found for run in runs if (found := _environment(run))]


def _environment(run: Run) -> Mapping[str, Any]:
    return _record(run.folder / ENVIRONMENT)


def _record(path: Path) -> Mapping[str, Any]:
    """A record of a run; empty if it is missing or broken."""
    try:
        return read_json(path)
    except UserError:
        return {}
