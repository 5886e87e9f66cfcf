"""`emor3 quickstart`: an embedded base before and after EMO-R3, in one table with intervals and paired tests.

base -> evaluate -> train its world's recipe -> evaluate under the same judge (the base) -> table, plot, results
"""

import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.figure import Figure
from rich import box
from rich.table import Column, Table

from emor3.data.folders import EMBEDDED, resolve_folder
from emor3.evaluation.compare import compare_check
from emor3.evaluation.evaluate import Candidate, evaluate, load_candidate
from emor3.evaluation.predict import prediction_text
from emor3.evaluation.settings import EvaluationSettings
from emor3.evaluation.summary import Evaluation
from emor3.experiments.plan import refuse_own_code
from emor3.printing import say, show
from emor3.runs.directory import METRICS
from emor3.runs.predictions import RESULTS
from emor3.runs.recipe import load_recipe
from emor3.runs.records import MEASURED, environment_stamp, read_jsonl
from emor3.stats.classification import is_correct
from emor3.stats.figures import titles
from emor3.stats.format import p_value, percent, points, tenths
from emor3.stats.measures import Check, rate
from emor3.stats.uncertainty import Comparison
from emor3.storage.outputs import fresh_output, write_json
from emor3.storage.shipped import RECIPES
from emor3.tiny.perception import EXACT, DrawnTruth
from emor3.training.dataset import chosen_samples
from emor3.training.run import checked_settings, train

RECIPE = RECIPES / "quickstart.yaml"
SHOWN = ("accuracy", "macro_f1", "format", "consistency", "coherence", "unparsed", "perception")
EXAMPLES = 3
TABLE_WIDTH = 80
"""Columns that the table needs; it is never cut below them."""
WINDOW = 10
"""Steps that the plot's lines are averaged over."""


@dataclass(frozen=True)
class World:
    """Drawn scenes: the recipe that trains a base on one of their domains, and how it is evaluated on all of them."""

    recipe: Path
    trained_on: str
    others: tuple[str, ...]
    """Domains with other labels and another style: out of domain."""
    settings: EvaluationSettings

    @property
    def domains(self) -> tuple[str, ...]:
        """All data sets, that of training first."""
        return (self.trained_on, *self.others)

    @property
    def decodings(self) -> Mapping[str, tuple[float, tuple[str, ...]]]:
        """Name -> temperature and the data sets evaluated at it."""
        return {"greedy": (0.0, self.domains), "sampled": (1.0, (self.trained_on,))}

    @cached_property
    def checks(self) -> Mapping[str, Check]:
        """Figures that are tested before against after, by name; perception is step 1 against the drawn scene."""
        return {"accuracy": is_correct, "perception": DrawnTruth(map(resolve_folder, self.domains)).exact}


HARD = World(
    RECIPE,
    trained_on="embedded:hard8",
    others=("embedded:hard6", "embedded:hard7"),
    settings=EvaluationSettings(max_new_tokens=80, batch_size=256, limit=256),  # of 512: the recipe counts the cost
)
EASY = World(
    RECIPES / "quickstart_easy.yaml",
    trained_on="embedded:scenes8",
    others=("embedded:scenes6", "embedded:scenes7"),
    settings=EvaluationSettings(max_new_tokens=96, batch_size=256),
)


@dataclass(frozen=True)
class Outcome:
    """One data set under one decoding, before and after training, with the paired tests by figure."""

    decoding: str
    in_domain: bool
    before: Evaluation
    after: Evaluation
    tests: Mapping[str, Comparison]


def run_quickstart(world: World, seed: int, output: Path | None, limit: int | None, overrides: Sequence[str]) -> Path:
    """Evaluate, train, evaluate again; print the table and write everything to a new folder, which it returns.

    `limit` is the number of test images of each data set; None leaves the world's.
    """
    recipe = load_recipe(world.recipe, [*overrides, f"seed={seed}"])
    refuse_own_code(recipe, "quickstart")
    checked_settings(recipe, chosen_samples(recipe))  # now, not after minutes of evaluating the base
    with fresh_output(output, "quickstart") as folder:
        start = time.perf_counter()
        run = folder / "training"
        recipe = recipe.model_copy(update={"output_dir": str(run)})
        settings = world.settings.model_copy(update={"seed": seed, "limit": limit or world.settings.limit})
        say(f"1/3  evaluating the base ({recipe.model.path})")
        before = evaluate_all(world, load_candidate(recipe.model.path), settings, folder / "base")
        say(f"2/3  training with EMO-R3 ({world.recipe.name}, seed {seed})")
        train(recipe)
        say("3/3  evaluating again")
        trained = load_candidate(str(run))
        after = evaluate_all(world, trained, settings, folder / "trained")
        outcomes = [paired_outcome(world, *one, other) for one, (_, other) in zip(before, after, strict=True)]
        seconds = time.perf_counter() - start
        write_json(folder / RESULTS, summary(seed, trained.judge_path, seconds, outcomes))
        plot_rewards(run / METRICS, folder / "rewards.png")
        show(outcome_table(outcomes), at_least=TABLE_WIDTH)
        say("Completions of the trained model on the first test scenes, greedy:\n")
        for prediction in after[0][1].predictions[:EXAMPLES]:
            say(f"{prediction_text(prediction)}\n  {'viewers say':<12} {prediction.sample.label}\n")
        say(f"judge of consistency and coherence: {trained.judge_path}")
        say(f"run directory: {run}\nresults, predictions and rewards.png: {folder}")
        say(f"took {tenths(seconds / 60)} minutes")
    return folder


def evaluate_all(
    world: World, candidate: Candidate, settings: EvaluationSettings, folder: Path
) -> list[tuple[str, Evaluation]]:
    """Decoding and evaluation of each data set, with perception among the figures; the one trained on comes first."""
    found = []
    for decoding, (temperature, data) in world.decodings.items():
        decoded = settings.model_copy(update={"temperature": temperature})
        for evaluation in evaluate(candidate, data, decoded, folder / decoding):
            perception = rate(evaluation.predictions, world.checks["perception"])
            assert perception is not None, "a picture of a world was not drawn by us"
            found.append((decoding, replace(evaluation, figures={**evaluation.figures, "perception": perception})))
    return sorted(found, key=lambda one: one[1].data != world.trained_on)


def paired_outcome(world: World, decoding: str, before: Evaluation, after: Evaluation) -> Outcome:
    """Paired tests between two evaluations of the same samples."""
    found = {name: compare_check(before.predictions, after.predictions, check) for name, check in world.checks.items()}
    in_domain = before.data == world.trained_on
    return Outcome(decoding, in_domain, before, after, {name: test for name, test in found.items() if test is not None})


def outcome_table(outcomes: Sequence[Outcome]) -> Table:
    """Figures in percent with 95% intervals before and after; change and p-value of those with a paired test."""
    title = "Before and after EMO-R3: percent [95% interval]"
    columns = (Column(heading, no_wrap=True) for heading in ("", "before", "after", "change", "p"))
    table = Table(*columns, box=box.SIMPLE_HEAD, show_edge=False, padding=0, title=title)  # a blank divides columns
    names = titles() | {"perception": EXACT}
    for outcome in outcomes:
        domain = "in domain" if outcome.in_domain else "out of domain"
        name = f"{outcome.before.data.removeprefix(EMBEDDED)}, {outcome.decoding}"
        table.add_row(name, f"n = {len(outcome.before.predictions)}", domain)
        for figure in SHOWN:
            values = (percent(evaluation.figures[figure]) for evaluation in (outcome.before, outcome.after))
            test = outcome.tests.get(figure)
            change = () if test is None else (points(test.difference.value), p_value(test.p_value))
            table.add_row(f"  {names[figure]}", *values, *change)
        table.add_section()
    return table


def summary(seed: int, judge: str, seconds: float, outcomes: Sequence[Outcome]) -> dict[str, Any]:
    """Content of the quickstart's own `results.json`."""
    rows = [
        {
            "data": outcome.before.data,
            "decoding": outcome.decoding,
            "n": len(outcome.before.predictions),
            "before": {name: asdict(estimate) for name, estimate in outcome.before.figures.items()},
            "after": {name: asdict(estimate) for name, estimate in outcome.after.figures.items()},
            **{name: asdict(test) for name, test in outcome.tests.items()},
        }
        for outcome in outcomes
    ]
    return {"seed": seed, "judge": judge, "seconds": seconds, "environment": environment_stamp(), "outcomes": rows}


def plot_rewards(path: Path, target: Path) -> None:
    """Plot the mean of each reward part over training, from the metrics of a run."""
    rows = list(read_jsonl(path, MEASURED))
    figure = Figure(figsize=(7, 4), layout="constrained")
    axes = figure.subplots()
    parts = ("accuracy", "format", "consistency", "coherence")
    for name, key in {"total": "reward", **{part: f"rewards/{part}/mean" for part in parts}}.items():
        values = np.array([row[key] for row in rows if key in row])
        window = min(WINDOW, len(values))
        if window:
            smooth = np.convolve(values, np.full(window, 1 / window), mode="valid")
            axes.plot(range(window, len(values) + 1), smooth, label=name)
    axes.set(xlabel="step", ylabel=f"mean reward part ({WINDOW}-step average)", ylim=(0, 1.02))
    axes.legend()
    figure.savefig(target, dpi=150)
