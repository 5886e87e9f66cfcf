"""`emor3 data check --across` counts the images that have a copy in another split or set, each once, and names them."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image
from typer.testing import CliRunner

from emor3.cli.main import app
from emor3.data.copies.hashes import DISTANCE, near_links, perceptual_hash
from emor3.data.copies.overlaps import Copies, find_copies
from emor3.data.copies.report import summary, write_copies
from emor3.data.copies.scan import Scan, content_sums, look_at, scan
from emor3.errors import UserError


def picture(seed: int, side: int = 160) -> Image.Image:
    """Smooth random shapes, whose weight lies in low frequencies as that of photographs."""
    noise = np.random.default_rng(seed).integers(0, 256, (16, 16, 3), dtype=np.uint8)
    return Image.fromarray(noise).resize((side, side), Image.Resampling.BICUBIC)


def data_folder(path: Path, *rows: tuple[str, str, str, Any]) -> str:
    """A data folder; rows are (file name, split, label, picture or bytes of a file)."""
    path.mkdir()
    lines = []
    for name, split, label, content in rows:
        if isinstance(content, bytes):
            (path / name).write_bytes(content)
        else:
            content.save(path / name)
        lines.append(json.dumps({"file_name": name, "split": split, "label": label}) + "\n")
    (path / "metadata.jsonl").write_text("".join(lines))
    return str(path)


@pytest.fixture
def two_sets(tmp_path: Path) -> list[str]:
    """A set whose test split repeats a training image twice, and a second set with a smaller JPEG of another."""
    a = data_folder(
        tmp_path / "a",
        ("1.png", "train", "joy", picture(1)),
        ("2.png", "train", "joy", picture(2)),
        ("3.png", "test", "fear", picture(1)),
        ("4.png", "test", "joy", picture(1)),
        ("5.png", "test", "joy", picture(5)),
    )
    b = data_folder(
        tmp_path / "b",
        ("1.jpg", "train", "calm", picture(2).resize((128, 128))),
        ("2.png", "train", "calm", picture(6)),
    )
    return [a, b]


def counted(copies: Copies) -> dict[tuple[str, ...], tuple[int, int]]:
    """(set, split, set, split) -> images with the same file and with a near copy, of the pairs that share one."""
    cells = [(Path(cell.set).name, cell.split) for cell in copies.scan.cells]
    return {(*cells[o.of], *cells[o.within]): (o.same_file, o.near) for o in copies.overlaps if o.near or o.same_file}


def test_images_with_copies_are_counted_once_for_each_split_and_set(two_sets: list[str]) -> None:
    assert counted(find_copies(scan(two_sets, workers=1))) == {
        ("a", "train", "a", "test"): (1, 1),  # 1.png, though it has two copies there
        ("a", "test", "a", "train"): (2, 2),
        ("a", "test", "a", "test"): (2, 2),  # 3.png and 4.png are copies of each other
        ("a", "train", "b", "train"): (0, 1),  # 2.png, smaller and recompressed
        ("b", "train", "a", "train"): (0, 1),
    }


def test_groups_name_their_members_and_say_which_have_two_labels(two_sets: list[str], tmp_path: Path) -> None:
    copies = find_copies(scan(two_sets, workers=1))
    found = summary(copies)
    assert found["groups"] == {"all": 2, "two_splits": 2, "two_labels": 1}
    write_copies(copies, found, tmp_path / "out")
    groups = [json.loads(line) for line in (tmp_path / "out/groups.jsonl").read_text().splitlines()]
    assert [[member["id"] for member in group["members"]] for group in groups] == [
        ["1.png", "3.png", "4.png"],
        ["2.png", "1.jpg"],
    ]
    assert [group["same_file"] for group in groups] == [True, False]
    assert groups[0]["most_bits"] == 0
    assert 0 <= groups[1]["most_bits"] <= DISTANCE


def test_a_stricter_distance_finds_no_more_than_it_allows(two_sets: list[str]) -> None:
    found = scan(two_sets, workers=1)
    away = max(find_copies(found).distances)
    assert max(find_copies(found, away).distances) == away
    assert not [bits for bits in find_copies(found, away - 1).distances if bits >= away]


def test_a_jpeg_decoded_smaller_has_nearly_the_hash_of_the_whole_one(tmp_path: Path) -> None:
    for seed in range(4):
        picture(seed, 600).save(tmp_path / "large.jpg", quality=90)
        with Image.open(tmp_path / "large.jpg") as whole:
            expected = perceptual_hash(whole)
        assert (int.from_bytes(look_at(str(tmp_path / "large.jpg")).hash) ^ expected).bit_count() <= 4


def test_blank_pictures_are_copies_only_if_their_files_are_the_same(tmp_path: Path) -> None:
    white, grey = Image.new("RGB", (40, 40), "white"), Image.new("RGB", (40, 40), "gray")
    rows = [("1.png", "train", "joy", white), ("2.png", "test", "joy", white), ("3.png", "test", "joy", grey)]
    copies = find_copies(scan([data_folder(tmp_path / "a", *rows)], workers=1))
    assert counted(copies) == {("a", "train", "a", "test"): (1, 1), ("a", "test", "a", "train"): (1, 1)}
    assert summary(copies)["without_contrast"] == 3


def test_what_cannot_be_read_is_left_out_and_named(tmp_path: Path) -> None:
    folder = data_folder(
        tmp_path / "a", ("1.png", "train", "joy", picture(1)), ("broken.png", "test", "joy", b"no picture")
    )
    with (tmp_path / "a/metadata.jsonl").open("a") as manifest:
        manifest.write('{"file_name": "gone.png", "label": "joy"}\n{broken\n')
    found = scan([folder], workers=1)
    assert (len(found.cell), found.rows[folder]) == (1, 4)
    assert [
        word in fault for word, fault in zip(("gone.png", "not JSON", "broken.png"), sorted(found.faults), strict=True)
    ]
    with pytest.raises(UserError, match="is given twice"):
        scan([folder, folder], workers=1)


def test_a_folder_of_images_needs_no_manifest_and_its_folders_tell_the_split(tmp_path: Path) -> None:
    for place in ("train/joy/1.png", "test/joy/1.png", "other/2.png"):
        (tmp_path / place).parent.mkdir(parents=True)
        picture(1 if "1" in place else 2).save(tmp_path / place)
    found = scan([str(tmp_path)], workers=1)
    assert sorted(cell.split for cell in found.cells) == ["all", "test", "train"]
    assert sorted(o.same_file for o in find_copies(found).overlaps)[-2:] == [1, 1]


def test_the_checksum_of_a_set_is_that_of_its_images_whatever_their_names_and_order(tmp_path: Path) -> None:
    one = data_folder(tmp_path / "a", ("1.png", "train", "joy", picture(1)), ("2.png", "train", "joy", picture(2)))
    other = data_folder(tmp_path / "b", ("x.png", "test", "fear", picture(2)), ("y.png", "test", "joy", picture(1)))
    third = data_folder(tmp_path / "c", ("x.png", "test", "fear", picture(2)), ("y.png", "test", "joy", picture(3)))
    sums = content_sums(scan([one, other, third], workers=1))
    assert sums[one] == sums[other] != sums[third]


def test_hashes_that_crowd_in_one_band_are_all_compared() -> None:
    rng = np.random.default_rng(0)
    base = rng.integers(0, 2, 256, dtype=np.uint8)
    base[0] = 0
    bits = np.tile(base, (60, 1))
    for row in bits[1:]:  # nine to eleven bits away from the first
        row[rng.choice(np.arange(1, 256), rng.integers(9, 12), replace=False)] ^= 1
    packed = np.packbits(bits, axis=1)
    expected = {
        (i, j): int(np.count_nonzero(bits[i] != bits[j]))
        for i in range(60)
        for j in range(i + 1, 60)
        if np.count_nonzero(bits[i] != bits[j]) <= DISTANCE
    }
    found = [(i, j, n) for links in near_links(packed) for i, j, n in zip(*map(list, links), strict=True)]
    assert len(found) == len(expected) > 59
    assert {(i, j): n for i, j, n in found} == expected


def test_the_report_escapes_what_a_set_is_called_and_states_the_method(two_sets: list[str], tmp_path: Path) -> None:
    odd = str(Path(two_sets[1]).rename(tmp_path / "<b>"))
    done = CliRunner().invoke(
        app, ["data", "check", "--across", two_sets[0], odd, "--workers", "1", "-o", str(tmp_path / "out")]
    )
    assert done.exit_code == 0
    assert "2 groups of copies: 2 reach over two splits or sets, 1 have two labels in one set" in done.output
    html = (tmp_path / "out/report.html").read_text()
    assert "/&lt;b&gt; / train" in html
    assert "/<b> / train" not in html
    for text in (html, (tmp_path / "out/report.md").read_text()):
        assert "at most 16 of 255 bits" in text
        assert "1 (33.3%)" not in text
        assert "2 (66.7%)" in text  # two of three test images are in train
    assert json.loads((tmp_path / "out/copies.json").read_text())["sets"][0]["images"] == {"train": 2, "test": 3}


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["a", "b"], "2 folders: check one at a time, or look for copies between them with --across"),
        (["a", "--distance", "3"], "--distance does nothing without --across"),
        (["a", "--across", "--rows-only"], "--rows-only does nothing with --across"),
        (["gone", "--across"], "gone: no such folder"),
    ],
)
def test_folders_and_options_that_do_not_fit_are_refused_in_a_line(arguments: list[str], message: str) -> None:
    refused = CliRunner().invoke(app, ["data", "check", *arguments])
    assert isinstance(refused.exception, UserError)
    assert message in str(refused.exception)


@pytest.mark.slow
def test_several_processes_find_what_one_does(two_sets: list[str]) -> None:
    def content(found: Scan) -> list[Any]:
        return [found.cells, found.cell.tolist(), found.hashes.tolist(), found.digests.tolist(), found.names[3]]

    assert content(scan(two_sets, workers=2)) == content(scan(two_sets, workers=1))
