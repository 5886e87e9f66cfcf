"""The drawings at hand on the page: scenes of the embedded world, easy and hard."""

from pathlib import Path
from random import Random

from emor3.tiny.hard_drawing import draw_picture
from emor3.tiny.world import DOMAINS, draw_cue, sample_scene, vote

EACH = 4
"""Drawings of each domain."""


def draw_examples(folder: Path) -> list[Path]:
    """Draw a few scenes into a folder, always the same; the names of the files say what is drawn."""
    paths = []
    for name in ("scenes8", "hard8"):
        domain, rng = DOMAINS[name], Random(f"demo/{name}")
        for _ in range(EACH):
            scene = sample_scene(rng)
            cue = draw_cue(vote(scene, domain, rng)[0], domain, rng) if domain.hard else None
            described = f"{scene.object}, {scene.face} face, {scene.surroundings}{', hard to see' * domain.hard}"
            path = folder / f"{described}.png"
            draw_picture(scene, domain.style, cue, rng).save(path)
            paths.append(path)
    return paths
