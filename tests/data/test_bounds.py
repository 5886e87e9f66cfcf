"""What no prompt could hold is refused at the door with one line: long rows, many labels, pipes, text that is none."""

import os
import tracemalloc
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from PIL import Image
from transformers.models.gemma3.image_processing_pil_gemma3 import Gemma3ImageProcessorPil
from transformers.models.llava_onevision.image_processing_pil_llava_onevision import LlavaOnevisionImageProcessorPil

from emor3.data.check import check, report_table
from emor3.data.folders import load_samples
from emor3.data.prompt_lengths import label_cost, warn_of_many_labels
from emor3.data.rows import MAX_IMAGES, MAX_ROW_BYTES, MAX_TEXT, manifest_lines
from emor3.data.settings import DataBlock
from emor3.data.subsets import read_ids, sample_data
from emor3.errors import UserError
from emor3.method.labels import MAX_LABELS, MIKELS8, LabelSet
from emor3.method.thinking import build_prompt, load_template
from emor3.models.processors import LARGE, load_processor, open_images
from emor3.runs.recipe import build_recipe
from emor3.scoring.saved import score_file
from emor3.storage.images import open_image
from emor3.storage.yaml_text import read_yaml
from rows import write_rows

SETTINGS = DataBlock(train="x")
MINIMAL = {"output_dir": "run", "model": {"path": "x"}, "data": {"train": "x"}}


@pytest.fixture
def folder(tmp_path: Path) -> Callable[..., str]:
    """A folder with one picture; returns a function that writes rows beside it, all of which show the picture."""
    Image.new("RGB", (64, 64)).save(tmp_path / "a.png")

    def write(*rows: Any) -> Any:
        shown = [{"id": str(place), "file_name": "a.png", "label": "joy", **row} for place, row in enumerate(rows)]
        return write_rows(tmp_path, shown)

    return write


@pytest.mark.parametrize(
    "reader",
    [
        open_image,
        lambda path: read_yaml(path, "recipe"),
        lambda path: load_template(str(path)),
        read_ids,
        lambda path: list(score_file(path)),
    ],
)
def test_a_pipe_or_a_device_is_refused_and_not_waited_for(tmp_path: Path, reader: Any) -> None:
    os.mkfifo(tmp_path / "fifo.png")
    for path in (tmp_path / "fifo.png", "/dev/zero"):
        with pytest.raises(UserError, match=r"fifo\.png|/dev/zero"):
            reader(path)


@pytest.mark.parametrize("most", [4096, 100_000])
def test_a_large_picture_is_opened_in_the_size_that_the_processor_makes_of_it_with_the_same_pixels(
    tmp_path: Path, random_checkpoint: str, most: int
) -> None:
    processor = load_processor(random_checkpoint)
    processor.image_processor.size = {"shortest_edge": 1024, "longest_edge": most}
    noise = np.random.default_rng(0).integers(0, 256, (1000, LARGE // 1000 + 100, 3), np.uint8)
    path = str(tmp_path / "large.png")
    Image.fromarray(noise).save(path)
    (opened,) = open_images([path], processor).values()
    assert opened.width * opened.height <= most
    whole, ours = (processor.image_processor([image], return_tensors="np") for image in (open_image(path), opened))
    assert np.array_equal(whole["pixel_values"], ours["pixel_values"])
    assert opened.info == open_image(path).info  # by which copies are told to be of one file


@pytest.mark.slow
def test_a_large_picture_between_limits_that_leave_no_size_as_it_is_gets_as_many_tokens(
    tmp_path: Path, random_checkpoint: str
) -> None:
    processor = load_processor(random_checkpoint)
    processor.image_processor.size = {"shortest_edge": 4096, "longest_edge": 4096}
    path = str(tmp_path / "large.png")
    Image.new("RGB", (8000, 2000)).save(path)
    (opened,) = open_images([path], processor).values()
    assert opened.width * opened.height <= LARGE
    whole, ours = (processor.image_processor([image], return_tensors="np") for image in (open_image(path), opened))
    assert np.array_equal(whole["image_grid_thw"], ours["image_grid_thw"])


@pytest.mark.slow
@pytest.mark.parametrize(
    ("tower", "shortest"), [(Gemma3ImageProcessorPil, 1907), (LlavaOnevisionImageProcessorPil, 4608)]
)
def test_of_other_models_a_large_picture_keeps_all_that_they_look_at(tmp_path: Path, tower: Any, shortest: int) -> None:
    path = str(tmp_path / "large.png")
    Image.new("L", (5000, 5500)).save(path)
    (opened,) = open_images([path], SimpleNamespace(image_processor=tower())).values()
    assert min(opened.size) == shortest


def test_pictures_of_common_size_come_as_they_are(tmp_path: Path, random_checkpoint: str) -> None:
    Image.new("RGB", (2000, 2000)).save(tmp_path / "a.png")
    (image,) = open_images([str(tmp_path / "a.png")], load_processor(random_checkpoint)).values()
    assert image.size == (2000, 2000)


def test_a_row_of_many_megabytes_is_refused_without_reading_it_whole_and_the_others_are_checked(
    folder: Callable[..., str], random_checkpoint: str
) -> None:
    path = folder({}, {"text": "x" * 20 * MAX_ROW_BYTES}, {"label": "fear"})
    manifest = os.path.join(path, "metadata.jsonl")
    tracemalloc.start()
    report = check(path, SETTINGS, None)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 10 * MAX_ROW_BYTES
    assert report.bad_rows.cases == [f"{manifest} line 2: a row of over 1,000,000 bytes: shorten its texts"]
    assert report.counts.total() == 2
    with open(manifest, "rb") as file:
        for _, line, _, start in manifest_lines(Path(path)):
            file.seek(start)
            assert file.read(len(line)) == line
    with pytest.raises(UserError, match="line 2: a row of over 1,000,000 bytes"):
        load_samples(path)


@pytest.mark.parametrize(
    ("row", "message"),
    [
        ({"text": "x" * (MAX_TEXT + 1)}, "'text' has 32,001 characters"),
        ({"reasoning": "x" * (MAX_TEXT + 1)}, "'reasoning' has 32,001 characters"),
        ({"file_name": ["x"] * 100_000}, "'file_name' must be a path"),
        ({"id": "a\ud800"}, r"'id' holds half of a surrogate pair \('\\ud800'\)"),
        ({"label": "\udc00"}, "'label' holds half"),
        ({"text": "fog \udfff"}, "'text' holds half"),
        ({"attributes": {"scene": ["\ud800"]}}, "'attributes' holds half"),
        ({"label": "joy\nfear"}, r"'joy\\nfear' is not a label: it holds a line break"),
        ({"label": "joy\x1b[2J"}, "is not a label: it holds a line break, a control character"),
        ({"label": "joy\u2028fear"}, "is not a label: it holds a line break"),
        ({"label": "<|image_pad|>"}, r"models take '<\|image_pad\|>' for a token of their own"),
        ({"label": "<image> joy"}, "models take '<image>'"),
        ({"label": "x" * 201}, "it has over 200 characters"),
        ({"distribution": {"joy": 1, "a\nb": 1}}, r"'a\\nb' is not a label"),
    ],
)
def test_what_no_prompt_could_hold_is_refused_in_one_short_line_that_names_the_row(
    folder: Callable[..., str], row: dict[str, Any], message: str
) -> None:
    path = folder({"label": "fear"}, row, {})
    with pytest.raises(UserError, match=f"line 2: .*{message}") as refused:
        load_samples(path, labels=["joy", "fear"])
    assert len(str(refused.value)) < 1000
    assert len(check(path, SETTINGS, None).bad_rows.cases) == 1


def test_a_row_has_a_bounded_number_of_images(tmp_path: Path) -> None:
    Image.new("RGB", (64, 64)).save(tmp_path / "a.png")
    write_rows(tmp_path, [{"file_names": ["a.png"] * (MAX_IMAGES + 1), "label": "joy"}])
    with pytest.raises(UserError, match="101 images: at most 100 belong to one row"):
        load_samples(str(tmp_path), labels=["joy", "fear"])


def test_whole_surrogate_pairs_are_characters_and_white_space_around_a_label_is_left_out(
    folder: Callable[..., str],
) -> None:
    path = folder({"text": "\U0001f600"}, {"label": " fear\n"})  # json writes \ud83d\ude00
    assert [(sample.text, sample.label) for sample in load_samples(path)] == [("\U0001f600", "joy"), (None, "fear")]


def test_half_a_surrogate_pair_in_raw_bytes_is_refused_too(folder: Callable[..., str], tmp_path: Path) -> None:
    folder({"label": "fear"}, {"text": "HALF"})
    manifest = tmp_path / "metadata.jsonl"
    manifest.write_bytes(manifest.read_bytes().replace(b"HALF", b"\xed\xa0\x80"))
    with pytest.raises(UserError, match="line 2: 'text' holds half of a surrogate pair"):
        load_samples(str(tmp_path))


@pytest.mark.parametrize("label", ["a\nb", "\ud800", "<|vision_start|>", "[IMG]", "a\x00b", "<start_of_image>"])
def test_a_label_set_has_no_labels_or_aliases_that_break_a_prompt(label: str) -> None:
    with pytest.raises(UserError, match="is not a label"):
        LabelSet("mine", ("joy", label))
    with pytest.raises(UserError, match="is not an alias"):
        LabelSet("mine", ("joy", "fear"), aliases={label: "joy"})


def test_a_template_with_a_token_of_the_model_is_refused_by_its_name(tmp_path: Path) -> None:
    for number, text in enumerate(
        ("<|image_pad|> {{ labels }}", "{{ '<|image' ~ '_pad|>' }}", "<image>\n{{ labels }}")
    ):
        (tmp_path / f"{number}.txt").write_text(text)
        with pytest.raises(UserError, match=rf"template .*{number}\.txt: models take '<"):
            build_prompt(MIKELS8, str(tmp_path / f"{number}.txt"))
    (tmp_path / "own.txt").write_text("<step1> [LABELS] {{ labels }}")
    assert build_prompt(MIKELS8, str(tmp_path / "own.txt")).startswith("<step1> [LABELS] amusement")


def test_labels_beyond_a_thousand_are_refused_whether_named_or_found(folder: Callable[..., str]) -> None:
    LabelSet("mine", tuple(f"label {place}" for place in range(MAX_LABELS)))
    with pytest.raises(UserError, match=r"has 1,001 labels: .* at most 1,000 are taken"):
        LabelSet("mine", tuple(f"label {place}" for place in range(MAX_LABELS + 1)))
    path = folder(*({"label": f"label {place}"} for place in range(MAX_LABELS + 1)))
    for command in (load_samples, lambda path: check(path, SETTINGS, None)):
        with pytest.raises(UserError, match=r"'from the data' has 1,001 labels"):
            command(path)


def test_what_labels_cost_is_told_before_they_do(
    folder: Callable[..., str], random_checkpoint: str, capsys: pytest.CaptureFixture[str]
) -> None:
    processor = load_processor(random_checkpoint)
    count = lambda text: len(processor.tokenizer(text, add_special_tokens=False).input_ids)  # noqa: E731
    labels = ["label one", "label two", "joy"]
    listed, spelt = count("label one, label two, joy"), sum(map(count, labels)) + len(labels)
    cost = label_cost(processor, labels)
    assert cost == f"3 take {listed} tokens of a prompt and {listed + spelt} of a question of coherence"
    assert "labels" in str(report_table(check(folder({}, {"label": "fear"}), SETTINGS, processor)).columns[0]._cells)
    warn_of_many_labels(processor, labels)
    assert capsys.readouterr().err == ""
    warn_of_many_labels(processor, [f"label {place}" for place in range(101)])
    assert capsys.readouterr().err.startswith("many labels: 101 take ")


def test_a_group_of_a_hundred_thousand_completions_is_refused() -> None:
    with pytest.raises(UserError, match=r"num_generations \(G\) must be at most 1,024"):
        build_recipe({**MINIMAL, "grpo": {"num_generations": 100_000}}, (), "test")


def test_a_label_file_that_is_a_link_to_itself_ends_with_one_line(folder: Callable[..., str], tmp_path: Path) -> None:
    path = folder({}, {"label": "fear"})
    (tmp_path / "labels.yaml").symlink_to("labels.yaml")
    with pytest.raises(UserError, match=r"cannot read the label set .*labels\.yaml: Too many levels"):
        sample_data(path, tmp_path.parent / "drawn", {"train": 2})


@pytest.mark.parametrize("name", ["labels.yaml", "metadata.jsonl", "./ids.txt"])
def test_a_row_whose_image_is_a_file_of_the_folder_itself_is_not_sampled(
    folder: Callable[..., str], tmp_path: Path, name: str
) -> None:
    (tmp_path / "labels.yaml").write_text("[joy, fear]")
    (tmp_path / "ids.txt").touch()
    path = folder({"file_name": name}, {"label": "fear"})
    before = (tmp_path / "metadata.jsonl").read_bytes()
    with pytest.raises(UserError, match="as its image, which is a file of the data folder"):
        sample_data(path, tmp_path.parent / f"{tmp_path.name}-drawn", {"train": 2})
    assert (tmp_path / "metadata.jsonl").read_bytes() == before


def test_a_test_set_is_sound_unless_it_shall_train(folder: Callable[..., str]) -> None:
    path = folder({"split": "test"}, {"label": "fear", "split": "test"})
    assert not check(path, SETTINGS, None, trains=False).breaks_training()
    assert check(path, SETTINGS, None).empty.cases == ["no readable rows in split 'train'"]
    nothing = folder({"label": 7})
    with pytest.raises(UserError):
        check(nothing, SETTINGS, None, trains=False)
