"""Images are opened safely, completions are repeatable, and placeholders are never sampled."""

import pytest
import torch
from PIL import Image

from emor3.data import load_samples
from emor3.errors import UserError
from emor3.generation import encode, generate, open_image, vision_token_ids
from emor3.modeling import load


@pytest.fixture(scope="module")
def loaded(random_checkpoint):
    return load(random_checkpoint)


@pytest.fixture(scope="module")
def requests(scenes):
    return [(sample.image, "What is this?") for sample in load_samples(scenes, split="test")]


@pytest.mark.parametrize("mode", ["L", "LA", "P", "RGBA", "CMYK", "I;16", "1"])
def test_a_picture_of_any_mode_becomes_rgb(tmp_path, mode):
    suffix = "jpg" if mode == "CMYK" else "png"
    Image.new(mode, (8, 6)).save(tmp_path / f"a.{suffix}")
    image = open_image(str(tmp_path / f"a.{suffix}"))
    assert (image.mode, image.size) == ("RGB", (8, 6))


def test_a_rotated_photograph_is_turned_upright(tmp_path):
    exif = Image.Exif()
    exif[0x0112] = 6  # turned by 90 degrees
    Image.new("RGB", (8, 6)).save(tmp_path / "a.jpg", exif=exif)
    assert open_image(str(tmp_path / "a.jpg")).size == (6, 8)


@pytest.mark.parametrize("content", [b"", b"not a picture", b"\x89PNG\r\n\x1a\n"], ids=["empty", "text", "header"])
def test_a_file_that_is_no_picture_is_refused_by_name(tmp_path, content):
    (tmp_path / "a.png").write_bytes(content)
    with pytest.raises(UserError, match=r"a\.png cannot be read"):
        open_image(str(tmp_path / "a.png"))


def test_a_small_file_that_unpacks_to_a_huge_picture_is_refused_before_it_is_decoded(tmp_path):
    Image.new("1", (9000, 9000)).save(tmp_path / "bomb.png")  # 81 million pixels
    assert (tmp_path / "bomb.png").stat().st_size < 100_000
    with pytest.raises(UserError, match=r"bomb\.png has 9000 x 9000 pixels"):
        open_image(str(tmp_path / "bomb.png"))


def test_a_truncated_jpeg_is_refused_by_name(tmp_path):
    Image.effect_noise((64, 64), 50).save(tmp_path / "a.jpg")
    content = (tmp_path / "a.jpg").read_bytes()
    (tmp_path / "a.jpg").write_bytes(content[: len(content) // 2])
    with pytest.raises(UserError, match=r"a\.jpg.*cannot be read"):
        open_image(str(tmp_path / "a.jpg"))


def test_rows_with_and_without_an_image_share_a_batch_padded_on_the_left(loaded, requests):
    inputs = encode(loaded[1], [requests[0], (None, "Hello?")])
    assert inputs["attention_mask"][:, -1].tolist() == [1, 1]
    assert inputs["attention_mask"][1, 0] == 0
    assert len(inputs["image_grid_thw"]) == 1


def test_greedy_and_seeded_sampling_are_repeatable_and_leave_the_global_seed_alone(loaded, requests):
    def texts(**settings):
        return generate(*loaded, requests, max_new_tokens=6, **settings)

    state = torch.get_rng_state()
    assert texts() == texts()
    assert texts(temperature=1.0, seed=1) == texts(temperature=1.0, seed=1) != texts(temperature=1.0, seed=2)
    assert torch.equal(torch.get_rng_state(), state)


def test_placeholders_are_never_sampled_even_by_a_model_that_wants_nothing_else(random_checkpoint, requests):
    model, processor = load(random_checkpoint)
    placeholders = vision_token_ids(processor)
    assert len(placeholders) == 4  # image and video pads, vision start and end
    bias = torch.full((len(processor.tokenizer),), 0.0)
    bias[placeholders] = 100.0
    model.lm_head.register_forward_hook(lambda module, args, logits: logits + bias[: logits.shape[-1]])
    seen = []
    original = model.generate
    model.generate = lambda **kwargs: seen.append(original(**kwargs)) or seen[-1]
    generate(model, processor, requests, max_new_tokens=6, temperature=1.0)
    prompt = encode(processor, requests)["input_ids"].shape[1]
    assert not torch.isin(seen[0][:, prompt:], torch.tensor(placeholders)).any()
