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

import numpy as np
from sklearn.metrics import roc_auc_score

from emor3.data.folders import EMBEDDED, load_samples, resolve_folder
from emor3.evaluation.evaluate import Candidate, EvaluationSettings, complete, load_candidate
from emor3.method.reflection import consistency_question, says_yes
from emor3.method.rewards import predicted_label
from emor3.method.thinking import parse
from emor3.printing import say
from emor3.tiny.folders import read_scenes
from emor3.tiny.language import names_scene
from emor3.tiny.world import DOMAINS, Domain, ceiling

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


@dataclass(frozen=True)
class Figure:
    """A figure over images, its 95% interval and how many things it counts."""

    name: str
    value: float
    low: float
    high: float
    n: int

    def line(self) -> str:
        """On one line, as the docs show it."""
        return f"{self.name:<46} {self.value:.3f} [{self.low:.3f}, {self.high:.3f}]  n = {self.n}"


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


def share_exact(groups: Sequence[Group]) -> float:
    """Share of samples with step 1 exactly right."""
    return float(np.mean([group.exact for group in groups]))


def share_mixed(groups: Sequence[Group]) -> float:
    """Share of groups with right and wrong step 1."""
    return float(np.mean([group.mixed for group in groups]))


def within_auc(groups: Sequence[Group]) -> float:
    """AUC of P(yes) between right and wrong step 1 inside a group, averaged over mixed groups."""
    return float(np.mean([roc_auc_score(group.exact, group.yes) for group in groups if group.mixed]))


def wrong_reason(groups: Sequence[Group]) -> float:
    """Share of right labels that come with a wrong step 1."""
    reasons = [exact for group in groups for exact, right in zip(group.exact, group.right, strict=True) if right]
    return float(1 - np.mean(reasons))


FIGURES: dict[str, tuple[Callable[[Sequence[Group]], float], Callable[[Sequence[Group]], int]]] = {
    "1 step 1 exactly right": (share_exact, lambda groups: GROUP * len(groups)),
    "1 groups mixed": (share_mixed, len),
    "2 AUC of P(yes) within mixed groups": (within_auc, lambda groups: sum(group.mixed for group in groups)),
    "3 wrong step 1 among right labels": (wrong_reason, lambda groups: sum(sum(group.right) for group in groups)),
}
"""Name -> the figure and what it counts."""


def group_figures(groups: Sequence[Group], rounds: int = 2000) -> list[Figure]:
    """The figures of the first three conditions with their bootstrap intervals over images."""
    rng = np.random.default_rng(0)
    draws = [[groups[i] for i in rng.integers(len(groups), size=len(groups))] for _ in range(rounds)]
    return [
        Figure(name, figure(groups), *np.quantile([figure(draw) for draw in draws], (0.025, 0.975)), count(groups))
        for name, (figure, count) in FIGURES.items()
    ]


def cue_share(data: str, split: str, domain: Domain) -> float:
    """Share of a split's scenes whose border goes with their label by the rule of a domain, its own or another."""
    rows = [json.loads(line) for line in (resolve_folder(data) / "metadata.jsonl").read_text().splitlines()]
    rows = [row for row in rows if row["split"] == split and row["label"] in domain.labels.labels]
    return sum(row["cue"] == domain.cue(row["label"]) for row in rows) / len(rows)


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
        for figure in group_figures(groups):
            say(figure.line())
        say(f"  labels right at T = 1: {np.mean([group.right for group in groups]):.3f}")
        cued = {other.name: cue_share(name, "test", other) for other in DOMAINS.values() if other.hard}
        say(f"4 border goes with the label: training {cue_share(name, 'train', domain):.3f}; test, by rule of {cued}")
        say(f"5 viewers {domain.voters}, ceiling {best_possible(name, domain):.3f}")


if __name__ == "__main__":
    main(*(sys.argv[1:] or ["embedded", "embedded:hard8"]))
