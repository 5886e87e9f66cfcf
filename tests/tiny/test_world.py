"""The drawn world: seeds give bytes, votes follow the posterior, and texts are checked against scenes."""

import hashlib
import json
from pathlib import Path
from random import Random
from typing import Any

import numpy as np
import pytest
from PIL import Image, ImageChops

from conditions import ceiling, read_near_misses
from emor3.errors import UserError
from emor3.method.thinking import parse
from emor3.tiny.folders import PAIRS, TELLERS, ensure_domain, write_domain
from emor3.tiny.hard_drawing import draw_picture
from emor3.tiny.language import CONCLUSIONS, FEELINGS, alter, completion_text, names_scene, trigger_text
from emor3.tiny.world import (
    CUED,
    DOMAINS,
    EVOKES,
    FACTORS,
    HARD_DOMAINS,
    HARD_VOTERS,
    SHADES,
    VOTERS,
    Scene,
    draw_cue,
    label_distribution,
    likelihood,
    posterior,
    sample_scene,
    vote,
)
from tiny_examples import IMAGINED, imagined

FEAR = Scene("spider", "trembling", "alley")


def fingerprint(folder: Path) -> Any:
    files = sorted(path for path in folder.rglob("*") if path.is_file())
    return hashlib.sha256(b"".join(path.read_bytes() for path in files)).hexdigest()


@pytest.mark.parametrize("domain", ["scenes8", "hard8"])
def test_the_same_seed_draws_the_same_bytes_and_another_seed_does_not(tmp_path: Path, domain: str) -> None:
    for name, seed in (("a", 0), ("b", 0), ("c", 1)):
        write_domain(tmp_path / name, DOMAINS[domain], seed, {"train": 4, "test": 3})
    assert fingerprint(tmp_path / "a") == fingerprint(tmp_path / "b") != fingerprint(tmp_path / "c")


def test_a_drawn_folder_is_in_the_manifest_format_with_its_votes(tmp_path: Path) -> None:
    write_domain(tmp_path / "d", DOMAINS["scenes7"], 0, {"train": 5, "test": 2})
    rows = [json.loads(line) for line in (tmp_path / "d" / "metadata.jsonl").read_text().splitlines()]
    assert [row["split"] for row in rows] == ["train"] * 5 + ["test"] * 2
    for row in rows:
        assert (tmp_path / "d" / row["file_name"]).is_file()
        assert sum(row["distribution"].values()) == pytest.approx(1)
        assert row["distribution"][row["label"]] == max(row["distribution"].values())
        assert all(share * VOTERS == pytest.approx(round(share * VOTERS)) for share in row["distribution"].values())


def test_likelihoods_and_posteriors_are_distributions() -> None:
    assert all(sum(likelihood(factor, shade)) == pytest.approx(1) for factor in FACTORS for shade in SHADES)
    assert sum(posterior(FEAR).values()) == pytest.approx(1)
    for domain in DOMAINS.values():
        assert sum(label_distribution(FEAR, domain).values()) == pytest.approx(1)


def test_three_agreeing_factors_make_a_clear_posterior() -> None:
    # Likelihoods of (spider, trembling, alley) under fear: 14/21 * 10/16 * 7/14 = 0.2083
    # under a shade none goes with but with one face, seven times: 1/21 * 1/16 * 1/14 = 0.00021; amusement and
    # excitement share the laughing face, which does not change the other faces' weight of 1 in 16.
    assert posterior(FEAR)["fear"] == pytest.approx(0.20833 / (0.20833 + 7 * 0.0002126), abs=2e-3)


def test_the_best_guesser_is_right_as_often_as_the_majority_agrees_with_the_posterior() -> None:
    domain, rng = DOMAINS["scenes8"], Random(3)
    pairs = [(scene, vote(scene, domain, rng)[0]) for scene in (sample_scene(rng) for _ in range(2000))]
    assert 0.8 < ceiling(pairs, domain) < 0.95
    assert ceiling([(FEAR, "fear"), (FEAR, "awe")], domain) == 0.5


def test_every_shade_has_factors_words_and_a_conclusion() -> None:
    assert set(FEELINGS) == set(CONCLUSIONS) == set(SHADES)
    assert {shade for shades in EVOKES.values() for shade in shades} == set(SHADES)
    assert set(EVOKES) == {value for values in FACTORS.values() for value in values}


def test_a_trigger_names_its_scene_and_no_altered_one() -> None:
    rng = Random(0)
    for _ in range(200):
        scene = sample_scene(rng)
        assert names_scene(trigger_text(scene, rng), scene)
        assert not names_scene(trigger_text(alter(scene, rng), rng), scene)


def test_perception_asks_for_all_factors_and_no_other() -> None:
    assert not names_scene("A trembling face and a spider.", FEAR)
    assert not names_scene("A trembling face, a spider and a grave in an alley.", FEAR)
    assert not names_scene(None, FEAR)


def test_altering_changes_exactly_as_many_factors_as_asked() -> None:
    rng = Random(0)
    for factors in (1, 2, 3):
        other = alter(FEAR, rng, factors)
        assert sum(vars(other)[name] != vars(FEAR)[name] for name in FACTORS) == factors


def test_completion_texts_hold_the_grammar() -> None:
    from emor3.method.thinking import parse

    thought = parse(completion_text(FEAR, "fear", "fear", Random(0)))
    assert thought.problem is None
    assert thought.answer == "fear"


def test_the_reasoning_of_a_row_names_its_scene_and_leads_to_its_label(tmp_path: Path) -> None:
    write_domain(tmp_path / "a", DOMAINS["scenes7"], 0, {"train": 20})
    for line in (tmp_path / "a" / "metadata.jsonl").read_text().splitlines():
        row = json.loads(line)
        thought = parse(row["reasoning"])
        assert (thought.problem, thought.answer) == (None, row["label"])
        assert names_scene(thought.trigger, Scene(row["object"], row["face"], row["surroundings"]))


def test_an_embedded_domain_is_drawn_once_into_the_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("EMOR3_CACHE", str(tmp_path))
    # Our own: the size of a domain is part of it, and 1,664 pictures take two seconds.
    monkeypatch.setattr("emor3.tiny.folders.SPLIT_SIZES", {"train": 2, "test": 2})
    folder = ensure_domain("scenes6")
    before = (folder / "metadata.jsonl").stat().st_mtime_ns
    assert ensure_domain("scenes6") == folder
    assert (folder / "metadata.jsonl").stat().st_mtime_ns == before
    assert [path.name for path in tmp_path.iterdir()] == [folder.name]


def test_an_unknown_embedded_domain_is_refused_by_name() -> None:
    with pytest.raises(UserError, match="scenes9"):
        ensure_domain("scenes9")


def test_attacks_are_the_same_scenes_told_to_please_a_judge(tmp_path: Path) -> None:
    rows = {}
    for name, tell in TELLERS.items():
        write_domain(tmp_path / f"a{name}", DOMAINS["scenes8"], 0, {"train": 6}, tell)
        lines = (tmp_path / f"a{name}" / "metadata.jsonl").read_text().splitlines()
        rows[name] = [json.loads(line) for line in lines]
    for honest, generic, leaky in zip(rows[""], rows["generic"], rows["leaky"], strict=True):
        assert honest["label"] == generic["label"] == leaky["label"]
        assert parse(generic["reasoning"]).trigger == "A face and an object."
        assert all(
            honest["label"] in step for step in (parse(leaky["reasoning"]).trigger, parse(leaky["reasoning"]).feeling)
        )
        assert parse(generic["reasoning"]).problem is parse(leaky["reasoning"]).problem is None


def test_a_hard_domain_has_the_labels_of_the_easy_one_few_viewers_and_a_lower_ceiling(tmp_path: Path) -> None:
    easy, hard, rng = DOMAINS["scenes6"], DOMAINS["hard6"], Random(0)
    assert hard.labels == easy.labels
    write_domain(tmp_path / "d", hard, 0, {"train": 5})
    for line in (tmp_path / "d" / "metadata.jsonl").read_text().splitlines():
        votes = json.loads(line)["distribution"].values()
        assert all(share * HARD_VOTERS == pytest.approx(round(share * HARD_VOTERS)) for share in votes)
    scenes = [sample_scene(rng) for _ in range(2000)]
    ceilings = [ceiling([(s, vote(s, domain, rng)[0]) for s in scenes], domain) for domain in (easy, hard)]
    assert ceilings[1] < ceilings[0] - 0.03


def test_a_border_goes_with_the_label_in_most_hard_scenes_and_with_another_feeling_in_every_other_domain() -> None:
    domain, rng = DOMAINS["hard7"], Random(0)
    drawn = [draw_cue("joy", domain, rng) == domain.cue("joy") for _ in range(4000)]
    assert sum(drawn) / 4000 == pytest.approx(CUED, abs=0.02)
    for shade in SHADES:
        borders = [{domain.cue(label) for label in domain.votes[shade]} for domain in HARD_DOMAINS.values()]
        assert sum(map(len, borders)) == len(set().union(*borders))


def test_near_misses_are_pairs_of_pictures_with_one_factor_changed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_domain(tmp_path / "d", DOMAINS["hard8"], 0, {"test": 1})
    pairs = read_near_misses(tmp_path / "d")
    assert len(pairs) == PAIRS
    for pair in pairs:
        (first, one), (second, other) = pair.items()
        assert sum(vars(one)[factor] != vars(other)[factor] for factor in FACTORS) == 1
        assert (tmp_path / first).read_bytes() != (tmp_path / second).read_bytes()


def test_equal_dice_draw_hard_pictures_that_differ_only_at_the_changed_icon() -> None:
    scenes = [Scene("flame", face, "rain") for face in ("scowling", "smiling")]
    scowling, smiling = (draw_picture(scene, "painted", 0, Random(4)) for scene in scenes)
    changed = ImageChops.difference(scowling, smiling).getbbox()
    assert changed is not None
    left, upper, right, lower = changed
    assert max(right - left, lower - upper) < 32  # an icon of at most 29 pixels, and its rim


def test_what_is_imagined_goes_with_the_feeling() -> None:
    rng = Random(0)
    told = [imagined(Scene("teacup", "weeping", "rain"), "sadness", rng) for _ in range(2000)]
    assert {scene.object for scene in told} == {"teacup", "grave"}
    assert {(scene.face, scene.surroundings) for scene in told} == {("weeping", "rain")}
    assert sum(scene.object == "grave" for scene in told) / 2000 == pytest.approx(IMAGINED, abs=0.03)


@pytest.mark.parametrize(
    ("name", "folder", "mean", "deviation"),
    [
        ("scenes8", "scenes8-v2-seed0", 100.741, 67.041),
        ("hard8", "hard8-v2.2-seed0", 133.997, 75.675),
    ],
)
def test_a_changed_drawing_raises_the_version_so_that_no_cache_of_older_pictures_is_taken(
    name: str, folder: str, mean: float, deviation: float
) -> None:
    """Once figures were measured on pictures of a former drawing that still lay in a cache."""
    drawn = ensure_domain(name)
    pictures = np.stack([np.asarray(Image.open(drawn / f"images/test_{place:05d}.png")) for place in range(8)])
    assert drawn.name == folder
    assert pictures.mean() == pytest.approx(mean, abs=0.01)
    assert pictures.std() == pytest.approx(deviation, abs=0.01)
