"""`emor3 data export`: rows that a host reads, with images and distractors by paths that are there, and its command."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml
from jinja2 import Template
from pyarrow.parquet import read_table

from emor3.data.folders import load_samples
from emor3.data.importers.importing import import_data
from emor3.data.manifest import write_rows
from emor3.errors import UserError
from emor3.hosts.exports.catalogue import HOSTS, export_data
from emor3.hosts.rows import unpack
from emor3.hosts.settings import HostSettings
from emor3.method.thinking import sample_prompt

TRAINERS = ("trl", "easyr1", "verl", "swift", "verifiers")


def rows_of(folder: Path, file: str) -> list[dict[str, Any]]:
    path = folder / file
    if path.suffix == ".parquet":
        return list(read_table(path).to_pylist())
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]


def packed_of(row: dict[str, Any]) -> dict[str, Any]:
    """The packed row, wherever the host has it."""
    text = row.get("emor3") or row.get("answer") or row["reward_model"]["ground_truth"]
    return unpack(text, "row")


def prompt_of(row: dict[str, Any]) -> str:
    """The user turn, wherever the host has it, without placeholders."""
    prompt = next(row[name] for name in ("prompt", "problem", "messages") if name in row)
    text = prompt if isinstance(prompt, str) else prompt[0]["content"]
    return str(text).replace("<image>", "")


@pytest.fixture(scope="module", params=TRAINERS)
def exported(request: Any, scenes: str, tmp_path_factory: pytest.TempPathFactory) -> tuple[str, Path, Any]:
    out = tmp_path_factory.mktemp("exports") / request.param
    return request.param, out, export_data(request.param, scenes, out)


def test_every_row_has_its_prompt_its_label_and_images_that_are_there(exported: Any, scenes: str) -> None:
    host, out, written = exported
    assert list(written.files) == ["train", "test"]
    for split, file in written.files.items():
        samples, rows = load_samples(scenes, split=split), rows_of(out, file)
        assert len(rows) == len(samples)
        for sample, row in zip(samples, rows, strict=True):
            packed = packed_of(row)
            assert (packed["id"], packed["label"], packed["labels"]) == (
                sample.id,
                sample.label,
                list(sample.labels.labels),
            )
            assert prompt_of(row) == sample_prompt(sample, "steps")
            shown = [image["path"] for image in row["images"]] if host == "trl" else row["images"]
            assert shown == packed["images"]
            assert Path(shown[0]).read_bytes() == Path(sample.image).read_bytes()
            assert Path(shown[0]).is_relative_to(out)


def test_each_row_names_two_other_pictures_of_its_split_of_its_own_label_if_there_are(exported: Any) -> None:
    _, out, written = exported
    rows = [packed_of(row) for row in rows_of(out, written.files["train"])]
    label_of = {row["images"][0]: row["label"] for row in rows}
    for row in rows:
        others = [paths[0] for paths in row["distractors"]]
        assert len(set(others) - set(row["images"])) == 2
        assert set(others) <= label_of.keys()
    same = sum(label_of[paths[0]] == row["label"] for row in rows for paths in row["distractors"])
    assert same > len(rows)  # 3 of 24 have a label: by chance 2 * 24 * 2 / 23 = 4 would


def test_the_readme_holds_the_command_which_names_files_that_are_there(exported: Any) -> None:
    _, out, _ = exported
    readme = (out / "README.md").read_text()
    _, head, body = readme.split("---\n", 2)
    named = yaml.safe_load(head)["configs"][0]["data_files"]
    assert all((out / entry["path"]).is_file() for entry in named)
    command = body.split("```bash\n")[1].split("\n```")[0]
    for word in command.replace("\\\n", " ").replace("=", " ").replace(":compute_score", "").split():
        assert not word.startswith("/") or Path(word).exists(), word
    assert (out / "prompt.txt").read_text().startswith("Look at the image.")


def test_the_readme_says_which_version_of_the_host_was_run(exported: Any) -> None:
    host, out, _ = exported
    said = f"- emor3's side was run with this version of {HOSTS[host].title}: {HOSTS[host].run_with}."
    assert said in (out / "README.md").read_text().splitlines()


def test_the_settings_file_beside_it_asks_about_as_many_images_as_rows_name(exported: Any) -> None:
    _, out, _ = exported
    settings = HostSettings.model_validate(yaml.safe_load((out / "reward.yaml").read_text()))
    assert settings.reward.contrastive == 2
    assert settings.judge.endpoint.base_url == "http://localhost:8000/v1"


@pytest.mark.parametrize(
    ("template", "written"),
    [("confidence", ("confidence", 0.0)), ("direct", ("direct", None)), ("steps", ("steps", None))],
)
def test_the_settings_file_reads_completions_as_the_prompts_ask_for_them(
    scenes: str, tmp_path: Path, template: str, written: tuple[str, Any]
) -> None:
    export_data("swift", scenes, tmp_path / "out", split="test", template=template)
    content = yaml.safe_load((tmp_path / "out" / "reward.yaml").read_text())
    assert (content["thinking"], content["reward"].get("confidence")) == written
    HostSettings.model_validate(content)


@pytest.mark.slow
def test_data_import_hub_reads_an_export_back(exported: Any, scenes: str, tmp_path: Path) -> None:
    _, out, _ = exported
    imported = import_data("hub", str(out), tmp_path / "back")
    assert imported.dropped == []
    for split in ("train", "test"):
        given, back = load_samples(scenes, split=split), load_samples(str(tmp_path / "back"), split=split)
        assert [(one.id, one.label, one.distribution) for one in back] == [
            (one.id, one.label, pytest.approx(one.distribution)) for one in given
        ]
        assert Path(back[0].image).read_bytes() == Path(given[0].image).read_bytes()


@pytest.mark.slow
@pytest.mark.parametrize(("host", "copy"), [*((host, False) for host in HOSTS), ("vlmeval", True)])
def test_ids_groups_and_votes_come_back_from_every_host(scenes: str, tmp_path: Path, host: str, copy: bool) -> None:
    folder = tmp_path / "few"
    folder.mkdir()
    (folder / "images").symlink_to(Path(scenes, "images"))
    votes = {"awe": 0.75, "fear": 0.25}
    places = [(label, split) for split in ("train", "val") for label in ("awe", "fear")]
    rows = [
        {"id": f"00{n}", "label": label, "file_name": f"images/{Path(sample.image).name}", "split": split}
        | ({"distribution": votes, "group": "a, b"} if label == "awe" else {})
        for n, (sample, (label, split)) in enumerate(zip(load_samples(scenes)[:4], places, strict=True))
    ]
    write_rows(folder, rows)
    export_data(host, str(folder), tmp_path / "out", distractors=1, copy=copy)
    assert import_data("hub", str(tmp_path / "out"), tmp_path / "back").dropped == []
    given, back = load_samples(str(folder)), load_samples(str(tmp_path / "back"))
    for one, again in zip(given, back, strict=True):
        fields = ("id", "label", "split", "group", "distribution")
        assert [getattr(again, name) for name in fields] == [getattr(one, name) for name in fields]
        assert Path(again.image).read_bytes() == Path(one.image).read_bytes()


def test_easyr1s_prompt_file_puts_the_prompt_in_its_place(scenes: str, tmp_path: Path) -> None:
    written = export_data("easyr1", scenes, tmp_path / "out")
    row = rows_of(tmp_path / "out", written.files["train"])[0]
    rendered = Template((tmp_path / "out" / "prompt.jinja").read_text().strip()).render(content=row["problem"])
    assert rendered == row["problem"]
    assert rendered.startswith("<image>Look at the image.")


def test_the_same_seed_draws_the_same_distractors_and_another_one_others(scenes: str, tmp_path: Path) -> None:
    def drawn(name: str, seed: int) -> list[Any]:
        written = export_data("swift", scenes, tmp_path / name, split="test", seed=seed)
        rows = [packed_of(row) for row in rows_of(tmp_path / name, written.files["test"])]
        return [[Path(path).name for (path,) in row["distractors"]] for row in rows]

    assert drawn("a", 0) == drawn("b", 0) != drawn("c", 1)


def test_rows_with_texts_or_several_images_are_exported_and_distractors_have_images(mixed: str, tmp_path: Path) -> None:
    written = export_data("easyr1", mixed, tmp_path / "out", distractors=1)
    rows = rows_of(tmp_path / "out", written.files["train"])
    packed = [packed_of(row) for row in rows]
    assert sorted(len(row["images"]) for row in packed) == [0, 1, 1, 2]
    for row, whole in zip(rows, packed, strict=True):
        assert row["problem"].count("<image>") == len(whole["images"])
        assert ("text" in whole) == row["problem"].replace("<image>", "").startswith("Text: ")
        assert len(whole["distractors"]) == 1


def test_without_distractors_rows_say_so_and_the_settings_ask_about_none(scenes: str, tmp_path: Path) -> None:
    written = export_data("easyr1", scenes, tmp_path / "out", split="test", distractors=0)
    assert all(packed_of(row)["distractors"] == [] for row in rows_of(tmp_path / "out", written.files["test"]))
    settings = HostSettings.model_validate(yaml.safe_load((tmp_path / "out" / "reward.yaml").read_text()))
    assert settings.reward.contrastive == 0


def test_near_copies_are_no_distractors_and_too_few_pictures_are_refused(scenes: str, tmp_path: Path) -> None:
    folder = tmp_path / "few"
    folder.mkdir()
    names = [Path(sample.image).name for sample in load_samples(scenes, split="train")[:4]]
    (folder / "images").symlink_to(Path(scenes, "images"))
    rows = [
        {"file_name": f"images/{name}", "label": "awe" if n else "fear", "group": "g" if n < 2 else None}
        for n, name in enumerate(names)
    ]
    write_rows(folder, rows)
    written = export_data("swift", str(folder), tmp_path / "out")
    first = packed_of(rows_of(tmp_path / "out", written.files["train"])[0])
    assert {Path(path).name for (path,) in first["distractors"]} == set(names[2:])
    with pytest.raises(UserError, match=r"split train has 2 other images for sample .* --distractors 3 asks for more"):
        export_data("swift", str(folder), tmp_path / "more", distractors=3)
    assert not (tmp_path / "more").exists()


def test_copies_stand_in_the_folder_itself(scenes: str, tmp_path: Path) -> None:
    export_data("verl", scenes, tmp_path / "out", split="test", copy=True)
    assert not (tmp_path / "out" / "images").is_symlink()
    assert len(list((tmp_path / "out").rglob("*.png"))) == 8  # those of the split alone


def test_the_verifiers_package_has_a_name_that_python_takes(scenes: str, tmp_path: Path) -> None:
    written = export_data("verifiers", scenes, tmp_path / "2 Photos-é")
    assert written.files["train"] == "emor3_2_photos/train.jsonl"
    compile((tmp_path / "2 Photos-é" / "emor3_2_photos" / "__init__.py").read_text(), "module", "exec")
    assert 'name = "emor3_2_photos"' in (tmp_path / "2 Photos-é" / "pyproject.toml").read_text()


@pytest.mark.parametrize(
    ("arguments", "complaint"),
    [
        (["--for", "verI"], "--for verI: no such host: did you mean 'verl'"),
        (["--for", "trl", "--split", "dev"], "no rows in split 'dev'"),
        (["--for", "trl", "--template", "stepz"], "template 'stepz' is neither a shipped template nor a file"),
    ],
)
def test_what_cannot_be_exported_is_one_line_and_leaves_nothing(
    main_with: Callable[..., int],
    scenes: str,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    arguments: list[str],
    complaint: str,
) -> None:
    assert main_with("data", "export", scenes, tmp_path / "out", *arguments) == 2
    assert complaint in capsys.readouterr().err
    assert list(tmp_path.iterdir()) == []


def test_a_path_that_easyr1_would_cut_is_refused(scenes: str, tmp_path: Path) -> None:
    with pytest.raises(UserError, match="EasyR1 takes what follows an @ in a path for a split"):
        export_data("easyr1", scenes, tmp_path / "a@b")


def test_the_command_names_every_host_in_its_help(main_with: Callable[..., int], capsys: Any) -> None:
    main_with("data", "export", "--help")
    told = " ".join(capsys.readouterr().out.replace("│", " ").split())
    assert all(host in told for host in HOSTS)
