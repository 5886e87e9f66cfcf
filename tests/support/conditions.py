"""The five conditions of a world in which reflection can pay, measured on a base alone, before any reinforcement.

`python tests/support/conditions.py [MODEL] [DATA ...]` prints them with n and 95% intervals (bootstrap over images).
Perception varies; checking is easier than making; right for a wrong reason is common; a cue without meaning goes with
the label; viewers disagree.
"""

import json
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from random import Random
from typing import NamedTuple

import numpy as np

from emor3.data.folders import EMBEDDED, load_samples, resolve_folder
from emor3.evaluation.evaluate import Candidate, EvaluationSettings, complete, load_candidate
from emor3.method.reflection import consistency_question, says_yes
from emor3.method.rewards import predicted_label
from emor3.method.thinking import parse
from emor3.printing import say
from emor3.tiny.folders import NEAR_MISSES, PAIRS, read_scenes
from emor3.tiny.language import names_scene, trigger_text
from emor3.tiny.world import DOMAINS, HARD_DOMAINS, Domain, Scene, label_distribution

GROUP = 8


@dataclass(frozen=True)
class Group:
    """The completions of one image at T = 1: whether each has step 1 exactly right and the label right, P(yes)."""

    exact: tuple[bool, ...]
    right: tuple[bool, ...]
    yes: tuple[float, ...]

    @property
    def mixed(self) -> bool:
        """Whether step 1 is right in some and wrong in others."""
        return 0 < sum(self.exact) < len(self.exact)

    @property
    def auc(self) -> float:
        """Share of pairs of a right and a wrong step 1 in which the right one gets more yes; 0 unless mixed."""
        right, wrong = ([y for y, e in zip(self.yes, self.exact, strict=True) if e is told] for told in (True, False))
        return float(np.mean([(r > w) + (r == w) / 2 for r in right for w in wrong])) if self.mixed else 0.0

    @property
    def wrong_reasons(self) -> int:
        """How many right labels come with a wrong step 1."""
        return sum(right and not exact for exact, right in zip(self.exact, self.right, strict=True))


class Figure(NamedTuple):
    """A figure, its 95% interval and how many things it counts."""

    value: float
    low: float
    high: float
    n: int


def sample_groups(candidate: Candidate, data: str, images: int, seed: int = 0) -> list[Group]:
    """Groups of the first test images of a drawn domain, judged by the candidate's own judge."""
    scenes = read_scenes(resolve_folder(data))
    samples = load_samples(data, split="test")[:images]
    repeated = [sample for sample in samples for _ in range(GROUP)]
    settings = EvaluationSettings(max_new_tokens=96, batch_size=256, temperature=1.0, seed=seed)
    thoughts = [parse(text) for text in complete(candidate, repeated, settings)]
    questions = [consistency_question(s.images, t.trigger or "") for s, t in zip(repeated, thoughts, strict=True)]
    yes = [says_yes(reply) for reply in candidate.judge.answer(questions)]
    exact = [names_scene(t.trigger, scenes[s.image]) for s, t in zip(repeated, thoughts, strict=True)]
    right = [predicted_label(t, s.labels) == s.label for s, t in zip(repeated, thoughts, strict=True)]
    cuts = range(0, len(repeated), GROUP)
    return [Group(*(tuple(part[cut : cut + GROUP]) for part in (exact, right, yes))) for cut in cuts]


FIGURES: dict[str, Callable[[Group], tuple[float, float]]] = {
    "1 step 1 exactly right": lambda group: (sum(group.exact), len(group.exact)),
    "1 groups mixed": lambda group: (group.mixed, 1),
    "2 AUC of P(yes) within a group, mean": lambda group: (group.auc, group.mixed),
    "3 wrong step 1 among right labels": lambda group: (group.wrong_reasons, sum(group.right)),
    "labels right at T = 1": lambda group: (sum(group.right), len(group.right)),
}
"""Name -> what a group adds to the numerator and to the denominator of the figure."""


def group_figures(groups: Sequence[Group], rounds: int = 2000) -> dict[str, Figure]:
    """The figures of the first three conditions with their bootstrap intervals over images."""
    places = np.random.default_rng(0).integers(len(groups), size=(rounds, len(groups)))
    figures = {}
    for name, parts in FIGURES.items():
        over, under = np.array([parts(group) for group in groups], dtype=float).T
        with np.errstate(invalid="ignore"):  # a draw without a mixed group has no AUC
            low, high = np.nanquantile(over[places].sum(1) / under[places].sum(1), (0.025, 0.975))
        figures[name] = Figure(over.sum() / under.sum(), low, high, int(under.sum()))
    return figures


def read_near_misses(folder: Path) -> list[dict[str, Scene]]:
    """Pairs of pictures that differ in one factor: for each pair, the scene of either picture by the picture's path."""
    with (folder / NEAR_MISSES).open(encoding="utf-8") as manifest:
        rows = [json.loads(line) for line in manifest]
    return [
        {str(folder / name): Scene(**scene) for name, scene in zip(row["file_names"], row["scenes"], strict=True)}
        for row in rows
    ]


def near_miss_auc(candidate: Candidate, data: str) -> float:
    """Share of near-miss pictures whose own description gets more yes than that of its pair, one factor away."""
    rng = Random(0)
    pairs = [list(pair.items()) for pair in read_near_misses(resolve_folder(data))]
    asked = [(image, (own, other)) for a, b in pairs for (image, own), (_, other) in ((a, b), (b, a))]
    questions = [consistency_question((image,), trigger_text(told, rng)) for image, both in asked for told in both]
    yes = [says_yes(reply) for reply in candidate.judge.answer(questions)]
    return float(np.mean([own > other for own, other in zip(yes[::2], yes[1::2], strict=True)]))


def cue_share(data: str, split: str, domain: Domain) -> float:
    """Share of a split's scenes whose border goes with their label by the rule of a domain, its own or another."""
    rows = [json.loads(line) for line in (resolve_folder(data) / "metadata.jsonl").read_text().splitlines()]
    rows = [row for row in rows if row["split"] == split and row["label"] in domain.labels.labels]
    return sum(row["cue"] == domain.cue(row["label"]) for row in rows) / len(rows)


def ceiling(scenes_and_labels: list[tuple[Scene, str]], domain: Domain) -> float:
    """Accuracy of the best possible guesser, who knows every scene's vote distribution, against the majority labels."""
    best = [
        max(shares, key=shares.__getitem__) for shares in (label_distribution(s, domain) for s, _ in scenes_and_labels)
    ]
    return sum(guess == label for guess, (_, label) in zip(best, scenes_and_labels, strict=True)) / len(best)


def best_possible(data: str, domain: Domain) -> float:
    """Accuracy of a guesser who knows every test scene's vote distribution, but not the border's meaning."""
    scenes = read_scenes(resolve_folder(data))
    return ceiling([(scenes[sample.image], sample.label) for sample in load_samples(data, split="test")], domain)


def main(model: str, *data: str) -> None:
    """Print the conditions of a model on hard domains."""
    candidate = load_candidate(model)
    for name in data:
        domain = DOMAINS[name.removeprefix(EMBEDDED)]
        say(f"{Path(model).name} on {name}")
        groups = sample_groups(candidate, name, 256)
        for title, (value, low, high, n) in group_figures(groups).items():
            say(f"  {title:<40} {value:.3f} [{low:.3f}, {high:.3f}]  n = {n}")
        say(f"  2 own text before that of a near miss    {near_miss_auc(candidate, name):.3f}  n = {2 * PAIRS}")
        for other in HARD_DOMAINS.values():
            train, test = (cue_share(name, split, other) for split in ("train", "test"))
            say(f"  4 border is the label's by the rule of {other.name}: {train:.3f} in training, {test:.3f} in test")
        say(f"  5 {domain.voters} viewers, ceiling {best_possible(name, domain):.3f}")


if __name__ == "__main__":
    main(*(sys.argv[1:] or ["embedded-hard", *(f"{EMBEDDED}{name}" for name in HARD_DOMAINS)]))
