"""The embedded domains as data folders in our manifest format, drawn on first use and kept in a cache."""

import json
import os
import re
import shutil
import tempfile
from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path
from random import Random

from emor3.errors import UserError
from emor3.storage.outputs import written_to
from emor3.tiny import hard_drawing
from emor3.tiny.hard_drawing import draw_picture
from emor3.tiny.language import alter, completion_text, generic_text, leaky_text
from emor3.tiny.world import CUES, DOMAINS, FACTORS, Domain, Scene, draw_cue, likely_shade, sample_scene, vote

VERSION = 2
"""Raised whenever a seed would give other files, so that cached folders are never mixed up."""

Tell = Callable[[Scene, str, str, Random], str]
TELLERS: dict[str, Tell] = {"": completion_text, "generic": generic_text, "leaky": leaky_text}
"""How the `reasoning` of a domain is told: honestly, or as one of two attacks, in `scenes8_generic` and so on."""

SPLIT_SIZES = {"train": 1024, "val": 128, "test": 512}
NEAR_MISSES = "near_misses.jsonl"
"""Manifest of a hard domain's pairs of pictures that differ in one factor only."""
PAIRS = 128


def write_domain(
    folder: Path, domain: Domain, seed: int, sizes: Mapping[str, int], tell: Tell = completion_text
) -> None:
    """Write images and `metadata.jsonl` for one domain; the same seed gives the same bytes.

    `tell` writes the `reasoning` of a scene, from the shade and the label that viewers feel.
    """
    (folder / "images").mkdir(parents=True)
    with (folder / "metadata.jsonl").open("w", encoding="utf-8") as manifest:
        for split, size in sizes.items():
            rng = Random(f"{VERSION}/{domain.name}/{split}/{seed}")
            words = Random(f"words/{domain.name}/{split}/{seed}")
            for index in range(size):
                scene = sample_scene(rng)
                label, distribution = vote(scene, domain, rng)
                name = f"images/{split}_{index:05d}.png"
                row = {"file_name": name, "label": label, "split": split, "distribution": distribution}
                cue = draw_cue(label, domain, rng) if domain.hard else None
                draw_picture(scene, domain.style, cue, rng).save(folder / name)
                shown = {} if cue is None else {"cue": cue}
                reasoning = tell(scene, likely_shade(scene, label, domain), label, words)
                manifest.write(json.dumps(row | {"reasoning": reasoning} | vars(scene) | shown) + "\n")
    if domain.hard:
        _write_near_misses(folder, domain, Random(f"{VERSION}/{domain.name}/near misses/{seed}"))


def _write_near_misses(folder: Path, domain: Domain, rng: Random) -> None:
    """Pairs of pictures, drawn with the same dice, of a scene and of the same scene with one factor changed."""
    (folder / "near_misses").mkdir()
    with (folder / NEAR_MISSES).open("w", encoding="utf-8") as manifest:
        for index in range(PAIRS):
            scene = sample_scene(rng)
            pair, cue, dice = (scene, alter(scene, rng)), rng.randrange(CUES), rng.getrandbits(64)
            names = [f"near_misses/{index:05d}_{place}.png" for place in "ab"]
            for one, name in zip(pair, names, strict=True):
                draw_picture(one, domain.style, cue, Random(dice)).save(folder / name)
            manifest.write(json.dumps({"file_names": names, "scenes": list(map(vars, pair))}) + "\n")


def is_drawn(folder: Path) -> bool:
    """Whether every row of a data folder names the factors of a drawn scene, and its picture."""
    with (folder / "metadata.jsonl").open(encoding="utf-8") as manifest:
        rows = (json.loads(line) for line in manifest if line.strip())
        return all(
            "file_name" in row and all(row.get(name) in values for name, values in FACTORS.items()) for row in rows
        )


def read_scenes(folder: Path) -> dict[str, Scene]:
    """True scene of every picture of a drawn folder, by the picture's path (for measuring perception)."""
    with (folder / "metadata.jsonl").open(encoding="utf-8") as manifest:
        rows = [json.loads(line) for line in manifest if line.strip()]
    return {str(folder / row["file_name"]): Scene(*(row[factor] for factor in FACTORS)) for row in rows}


def cache_folder() -> Path:
    """Where drawn domains are kept between runs: $EMOR3_CACHE, or emor3 under the user's cache folder."""
    fallback = Path(os.environ.get("XDG_CACHE_HOME", Path.home() / ".cache")) / "emor3"
    return Path(os.environ.get("EMOR3_CACHE", fallback))


def drawn_domain(picture: Path) -> Domain | None:
    """The domain that a picture was drawn for by the package, told by its place in the cache; None for any other."""
    cache, place = cache_folder().resolve(), picture.expanduser().resolve()
    if not place.is_relative_to(cache) or place == cache:
        return None
    return DOMAINS.get(re.split("[-_]", place.relative_to(cache).parts[0])[0])


def ensure_domain(name: str, seed: int = 0) -> Path:
    """Folder of an embedded domain in our manifest format, drawn on first use. Raises UserError on an unknown name."""
    domain, _, attack = name.partition("_")
    if domain not in DOMAINS or attack not in TELLERS:
        raise UserError(f"no embedded data set {name!r}: choose one of {', '.join(DOMAINS)}")
    version = f"{VERSION}.{hard_drawing.VERSION}" if DOMAINS[domain].hard else f"{VERSION}"
    target = cache_folder() / f"{name}-v{version}-seed{seed}"
    if not target.exists():
        with written_to(cache_folder()):
            _draw(
                target,
                partial(write_domain, domain=DOMAINS[domain], seed=seed, sizes=SPLIT_SIZES, tell=TELLERS[attack]),
            )
    return target


def _draw(target: Path, write: Callable[[Path], None]) -> None:
    """Fill a folder in one step: a killed or parallel run leaves no half-drawn one."""
    target.parent.mkdir(parents=True, exist_ok=True)
    draft = Path(tempfile.mkdtemp(dir=target.parent))
    try:
        write(draft / target.name)
        (draft / target.name).rename(target)
    except OSError:
        if not target.exists():
            raise
    finally:
        shutil.rmtree(draft)
