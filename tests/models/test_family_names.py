"""What is known of model families stands in one file: no other one of src names a family, in code, text or comment."""

import re

import pytest

from places import ROOT

SOURCE = ROOT / "src/emor3"
FAMILIES = re.compile(
    r"qwen|llava|gemma|idefics|smol_?vlm|intern_?vl|siglip|pixtral|mistral|llama|florence|molmo|granite|moondream"
    r"|minicpm|deepseek|clip_vision|CLIPVision|(?-i:\bCLIP\b)",
    re.IGNORECASE,
)
"""Names of classes and model types."""
FIELDS = re.compile(
    r"smart_resize|grid_thw|image_grid_pinpoints|mm_tokens_per_image|merge_size|image_sizes|batch_num_images"
    r"|longest_edge|merger|multi_modal_projector|vision_tower|\.visual\b"
)
"""Names of settings, inputs and modules by which one could tell a family."""
ALLOWED = ("models/architectures.py", "tiny/", "data/importers/benchmarks/published.py")
"""The file itself, the package whose model is a small Qwen2.5-VL, and whose figures others published."""


def test_only_one_file_names_a_model_family() -> None:
    names = [
        f"{path.relative_to(SOURCE)}:{number}: {line.strip()}"
        for path in sorted(SOURCE.rglob("*.py"))
        if not path.relative_to(SOURCE).as_posix().startswith(ALLOWED)
        for number, line in enumerate(path.read_text("utf-8").splitlines(), 1)
        if FAMILIES.search(line) or FIELDS.search(line)
    ]
    assert names == []


@pytest.mark.parametrize("text", ["Qwen3VLConfig", "llava_onevision", "SmolVLM", "the vision tower of CLIP", "gemma3"])
def test_names_are_found_in_classes_types_and_prose(text: str) -> None:
    assert FAMILIES.search(text)


@pytest.mark.parametrize("text", ["_clip(row)", "image.clip(0, 255)", "completions/clipped_ratio"])
def test_other_words_are_no_names(text: str) -> None:
    assert not FAMILIES.search(text)
