"""Processors: images without torchvision, a size limit that evaluation shares, and no text-only stand-in."""

import json
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from PIL import Image
from transformers import AutoTokenizer

from architectures import write_checkpoint
from emor3.data.folders import load_samples
from emor3.data.prompt_lengths import suggest_max_pixels, token_counter
from emor3.errors import UserError
from emor3.models.architectures import largest_area, limit_pixels
from emor3.models.checkpoints import load
from emor3.models.generation import encode
from emor3.models.processors import load_processor, save_processor, scaled
from emor3.storage.images import open_image


def test_a_limit_on_pixels_means_fewer_tokens_and_is_saved_for_evaluation(
    random_checkpoint: str, scenes: str, tmp_path: Path
) -> None:
    image = load_samples(scenes, split="test")[0].image
    processor = load_processor(random_checkpoint)
    whole = encode(processor, [((image,), "What?")])
    limit_pixels(processor, 1024)
    small = encode(processor, [((image,), "What?")])
    # 64 x 64 pixels are 8 x 8 patches; 1024 are 32 x 32, so 4 x 4.
    assert (whole["image_grid_thw"].tolist(), small["image_grid_thw"].tolist()) == ([[1, 8, 8]], [[1, 4, 4]])
    assert whole["input_ids"].shape[1] - small["input_ids"].shape[1] == 12  # 16 tokens became 4
    save_processor(processor, tmp_path)
    again = encode(load_processor(str(tmp_path)), [((image,), "What?")])
    assert again["image_grid_thw"].tolist() == [[1, 4, 4]]


def test_a_picture_scaled_to_our_limit_is_seen_alike_by_a_processor_without_it(
    random_checkpoint: str, scenes: str
) -> None:
    # What vLLM does: it prepares images with the checkpoint's own processor.
    path = load_samples(scenes, split="test")[0].image
    ours, theirs = (load_processor(random_checkpoint) for _ in range(2))
    for processor in (ours, theirs):
        processor.image_processor.size = {"shortest_edge": 256, "longest_edge": 65_536}
    limit_pixels(ours, 1024)
    image = open_image(path)
    wanted = ours.image_processor(image)
    seen = theirs.image_processor(scaled(image, ours))
    assert theirs.image_processor(image)["image_grid_thw"].tolist() == [[1, 8, 8]]
    assert seen["image_grid_thw"].tolist() == wanted["image_grid_thw"].tolist() == [[1, 4, 4]]
    # One grey level is 1 / 255 over a deviation of 0.26 or more: 0.015.
    torch.testing.assert_close(seen["pixel_values"], wanted["pixel_values"], atol=0.016, rtol=0)
    assert scaled(image, SimpleNamespace()) is image


@pytest.fixture(scope="module")
def tiling(tmp_path_factory: pytest.TempPathFactory) -> str:
    """A checkpoint whose images are cut into at most 2 x 2 tiles of 64 pixels, four tokens each."""
    folder = tmp_path_factory.mktemp("tiling")
    write_checkpoint("idefics3", folder)
    return str(folder)


def test_a_limit_on_pixels_leaves_fewer_tiles_and_none_is_refused(tiling: str) -> None:
    processor = load_processor(tiling)
    assert token_counter(processor, "")((90, 60)) == 5 * 4 + 5 * 2 + 4  # tiles, two marks each, ends of rows and image
    for limit, side, frames in ((4 * 64**2, 128, 5), (2 * 64**2, 64, 1)):
        limit_pixels(processor, limit)
        assert largest_area(processor) == side**2
        shown = processor(text=["<image>"], images=[Image.new("RGB", (90, 60))], return_tensors="pt")["pixel_values"]
        assert shown.shape == (1, frames, 3, 64, 64)
    with pytest.raises(UserError, match=r"max_pixels 4000: the model sees tiles of 64 x 64 pixels, give 4096 or more"):
        limit_pixels(processor, 4000)


def test_a_prompt_of_the_suggested_size_of_tiles_fits(tiling: str) -> None:
    processor = load_processor(tiling)
    # A tile takes 4 tokens and at most 4 marks. 2,048 - 2,006 - 2 = 40 are five of them: four, and the whole image.
    assert suggest_max_pixels(processor, 2006) == 4 * 64**2
    assert suggest_max_pixels(processor, 2007) == 64**2
    assert suggest_max_pixels(processor, 2040) is None


def test_other_processors_size_images_otherwise_and_are_refused(random_checkpoint: str) -> None:
    with pytest.raises(UserError, match=r"max_pixels is for processors of Qwen-VL, .*, not SimpleNamespace"):
        limit_pixels(SimpleNamespace(), 1024)


def test_a_text_only_checkpoint_is_no_stand_in(random_checkpoint: str, tmp_path: Path) -> None:
    AutoTokenizer.from_pretrained(random_checkpoint).save_pretrained(tmp_path)
    tokenizer_config = json.loads((tmp_path / "tokenizer_config.json").read_text())
    del tokenizer_config["processor_class"]
    (tmp_path / "tokenizer_config.json").write_text(json.dumps(tokenizer_config))
    (tmp_path / "config.json").write_text('{"model_type": "qwen2", "architectures": ["Qwen2ForCausalLM"]}')
    with pytest.raises(
        UserError, match=r"cannot load .* as an image-text-to-text model: it has a tokenizer but no image"
    ):
        load(str(tmp_path))


def test_a_processor_saved_again_is_the_same_file(random_checkpoint: str, tmp_path: Path) -> None:
    for name in ("one", "two"):
        save_processor(load_processor(random_checkpoint if name == "one" else str(tmp_path / "one")), tmp_path / name)
    one, two = ((tmp_path / name / "processor_config.json").read_text() for name in ("one", "two"))
    assert one == two


@pytest.mark.slow
def test_a_process_without_emor3_gets_the_right_processor_or_is_told_what_to_install(random_checkpoint: str) -> None:
    # Never a bare tokenizer, which TRL would take for a text-only model without a word.
    code = f"from transformers import AutoProcessor; print(type(AutoProcessor.from_pretrained({random_checkpoint!r})))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    if find_spec("torchvision"):
        assert "Qwen2_5_VLProcessor" in done.stdout
    else:
        assert done.returncode == 1
        assert "requires the Torchvision library" in done.stderr
