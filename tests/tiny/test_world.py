"""The drawn world: seeds give bytes, votes follow the posterior, and texts are checked against scenes."""

import hashlib
import json
from pathlib import Path
from random import Random
from typing import Any

import pytest

from emor3.errors import UserError
from emor3.method.thinking import parse
from emor3.tiny.folders import TELLERS, ensure_domain, write_domain
from emor3.tiny.language import CONCLUSIONS, FEELINGS, alter, completion_text, names_scene, trigger_text
from emor3.tiny.world import (
    DOMAINS,
    EVOKES,
    FACTORS,
    SHADES,
    VOTERS,
    Scene,
    ceiling,
    label_distribution,
    likelihood,
    posterior,
    sample_scene,
    vote,
)

FEAR = Scene("spider", "trembling", "alley")


def fingerprint(folder: Path) -> Any:
    files = sorted(path for path in folder.rglob("*") if path.is_file())
    return hashlib.sha256(b"".join(path.read_bytes() for path in files)).hexdigest()


def test_the_same_seed_draws_the_same_bytes_and_another_seed_does_not(tmp_path: Path) -> None:
    for name, seed in (("a", 0), ("b", 0), ("c", 1)):
        write_domain(tmp_path / name, DOMAINS["scenes8"], seed, {"train": 4, "test": 3})
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
