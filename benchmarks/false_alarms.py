"""How often tests of two equal methods call a difference, by seeds and their spread: the tables of docs/statistics.md.

    python benchmarks/false_alarms.py [STUDIES]

Each study draws yes-or-no outcomes of two equal methods on 512 images; the bootstraps get a tenth of the studies, since
they take longest. A right test at 5% alarms in 5% of them. The second table moves one method by the smallest effect,
which `power.smallest_effect` promises to find in 80% of studies.
"""

import sys
from collections.abc import Iterator

import numpy as np
from scipy.stats import norm

from emor3.stats.format import markdown_table
from emor3.stats.power import smallest_effect
from emor3.stats.seeds import Spread, compare_seeds, hierarchical_bootstrap
from emor3.stats.uncertainty import Floats

IMAGES = 512
SEEDS = (3, 5, 10)
WORLDS = {
    "0 points": (0.0, 0.0),
    "1.5 points": (0.21, 0.0),
    "1.5, half of it shared": (0.21, 0.5),
    "5 points": (0.7, 0.0),
}
"""Deviation of runs beyond their items, as printed; on the latent scale, and the part that equal seeds share."""
SLOPE = 0.068
"""Share of right answers for one unit of the latent scale, near 78%."""


def outcomes(
    generator: np.random.Generator, seeds: int, images: int, spread: float, shared: float, gain: float = 0.0
) -> tuple[Floats, Floats]:
    """Outcomes [S, N] of two methods, about 78% right; two runs differ on 8% of the images, as reinforcement runs do.

    An answer is right if easiness of the image + taste of the method + luck of the run + noise is above 0.
    """
    easiness = 3.2 + generator.normal(0, 4.0, images)
    luck = np.sqrt(shared) * generator.normal(0, spread, seeds)
    tables = []
    for shift in (0.0, gain):
        own = luck + np.sqrt(1 - shared) * generator.normal(0, spread, seeds)
        taste = easiness + generator.normal(0, 0.3, images)
        tables.append((taste + own[:, None] + generator.normal(0, 1, (seeds, images)) + shift > 0).astype(np.float64))
    return tables[0], tables[1]


def p_values(before: Floats, after: Floats, number: int, studies: int) -> Iterator[tuple[str, float]]:
    """Each test's p-value of one study."""
    welch, paired = compare_seeds(before, after), compare_seeds(before, after, paired=True)
    items = compare_seeds(before.mean(axis=0, keepdims=True), after.mean(axis=0, keepdims=True))
    yield "items alone (all seeds as one)", items.p_value
    if number < studies // 10:
        yield "bootstrap as drawn", hierarchical_bootstrap(before, after, seed=number, corrected=False)[1]
        yield "bootstrap, corrected", hierarchical_bootstrap(before, after, seed=number)[1]
    errors = abs(welch.difference.value) / max(welch.standard_error, 1e-12)
    yield "normal for t (a mixed model's Wald)", float(2 * norm.sf(errors))
    yield "t, paired seeds", paired.p_value
    yield "**t, independent seeds**", welch.p_value


def alarms(seeds: int, spread: float, shared: float, studies: int) -> dict[str, float]:
    """Share of studies in which each test finds p < 0.05."""
    generator = np.random.default_rng(seeds)
    found: dict[str, list[bool]] = {}
    for number in range(studies):
        for name, p_value in p_values(*outcomes(generator, seeds, IMAGES, spread, shared), number, studies):
            found.setdefault(name, []).append(p_value < 0.05)
    return {name: float(np.mean(hits)) for name, hits in found.items()}


def power(seeds: int, spread: float, studies: int) -> tuple[float, float]:
    """The smallest effect by the formula, and the share of studies that find it."""
    generator = np.random.default_rng(seeds)
    pilot = [compare_seeds(*outcomes(generator, 10, IMAGES, spread, 0.0)).spread for _ in range(100)]
    mean = Spread(*(float(np.mean([getattr(p, part) for p in pilot])) for part in ("seed", "item", "residual")))
    effect = smallest_effect(mean, IMAGES, seeds)
    found = [
        compare_seeds(*outcomes(generator, seeds, IMAGES, spread, 0.0, effect / SLOPE)).p_value < 0.05
        for _ in range(studies)
    ]
    return effect, float(np.mean(found))


def main(studies: int) -> None:
    """Print both tables as Markdown."""
    rows = []
    for world, (spread, shared) in WORLDS.items():
        for seeds in SEEDS:
            found = alarms(seeds, spread, shared, studies)
            rows.append([world, str(seeds), *(f"{100 * share:.1f}" for share in found.values())])
            print(rows[-1], file=sys.stderr, flush=True)
    print(markdown_table(["spread of seeds", "seeds", *found], rows))
    effects = [[str(seeds), *power(seeds, WORLDS["1.5 points"][0], studies)] for seeds in SEEDS]
    heads = ["seeds", "smallest effect, points", "found, %"]
    print(markdown_table(heads, ([s, f"{100 * e:.1f}", f"{100 * f:.0f}"] for s, e, f in effects)))


if __name__ == "__main__":
    main(int(sys.argv[1]) if len(sys.argv) > 1 else 1000)
