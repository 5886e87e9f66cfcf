"""Checkpoints load with the right classes, save in plain format, and a wrong path is one clear line."""

import copy
import json
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any, NoReturn

import bitsandbytes as bnb
import pytest
import torch
from huggingface_hub.errors import HfHubHTTPError
from peft import LoraConfig, get_peft_model
from transformers import AutoModelForImageTextToText, AutoProcessor, Qwen2_5_VLForConditionalGeneration

from emor3.errors import UserError
from emor3.models import checkpoints as modeling
from emor3.models.architectures import limit_pixels
from emor3.models.checkpoints import check_quantizable, load, merge, part_parameters, resolve_checkpoint, save
from emor3.models.settings import ModelBlock


def test_the_embedded_base_and_a_folder_load(random_checkpoint: str) -> None:
    model, processor = load(random_checkpoint)
    assert isinstance(model, Qwen2_5_VLForConditionalGeneration)
    assert not model.training
    assert processor.tokenizer.padding_side == "left"
    folders = [Path(resolve_checkpoint(name)) for name in ("embedded", "embedded-hard")]
    assert [folder.name for folder in folders] == ["checkpoint", "hard_checkpoint"]
    assert all((folder / "config.json").is_file() for folder in folders)


def test_batch_normalisation_keeps_its_statistics_in_training_and_computes_each_row_by_itself(
    random_checkpoint: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    normed = torch.nn.BatchNorm1d(1, eps=0.0)
    assert normed.running_mean is not None
    assert normed.running_var is not None
    normed.running_mean[0], normed.running_var[0] = 1.0, 4.0
    read = modeling._read

    def with_norm(*args: Any) -> Any:
        model = read(*args)
        model.normed = normed
        return model

    monkeypatch.setattr(modeling, "_read", with_norm)
    model = copy.deepcopy(load(random_checkpoint)[0]).train()  # also the copy that an average of the policy is
    rows = model.normed(torch.tensor([[3.0], [7.0]]))
    torch.testing.assert_close(rows, torch.tensor([[1.0], [3.0]]))  # (3 - 1) / 2 and (7 - 1) / 2
    assert model.normed.running_mean.item() == 1.0
    rows.sum().backward()
    assert model.normed.weight.grad.item() == pytest.approx(4.0)  # its own weights still learn: 1 + 3


def test_a_saved_checkpoint_loads_in_plain_transformers_with_the_same_weights(
    random_checkpoint: str, tmp_path: Path
) -> None:
    model, processor = load(random_checkpoint)
    save(model, processor, tmp_path)
    again = AutoModelForImageTextToText.from_pretrained(tmp_path)
    assert all(torch.equal(value, again.state_dict()[name]) for name, value in model.state_dict().items())
    assert type(AutoProcessor.from_pretrained(tmp_path)) is type(processor)
    assert not list(tmp_path.glob("*.bin"))


@pytest.mark.parametrize(
    ("error", "told"),
    [
        (
            HfHubHTTPError("404: none\nURL", response=SimpleNamespace(headers={}, request=None)),
            "the hub gives no such model: 404: none",
        ),
        (OSError("no route"), r"the hub cannot be reached \(no route\): offline, give a folder"),
        (TimeoutError(), r"the hub cannot be reached \(TimeoutError\)"),
    ],
)
def test_a_name_that_the_hub_lacks_is_told_from_a_hub_that_cannot_be_reached(
    monkeypatch: pytest.MonkeyPatch, error: Exception, told: str
) -> None:
    def fail(*_: Any, **settings: Any) -> NoReturn:
        raise error

    monkeypatch.setattr(modeling, "try_to_load_from_cache", lambda *_: None)
    monkeypatch.setattr(modeling, "get_hf_file_metadata", fail)
    with pytest.raises(UserError, match=f"no folder org/none, and {told}"):
        resolve_checkpoint("org/none")


@pytest.mark.slow
def test_a_process_that_imports_emor3_gets_the_whole_processor(random_checkpoint: str, tmp_path: Path) -> None:
    save(*load(random_checkpoint), tmp_path)
    load_it = f"transformers.AutoProcessor.from_pretrained({str(tmp_path)!r})"
    code = f"import emor3.models.processors, transformers; print(type({load_it}))"
    out = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout
    assert "Qwen2_5_VLProcessor" in out


def test_the_saved_processor_describes_its_video_part_for_machines_that_have_torchvision(
    random_checkpoint: str, tmp_path: Path
) -> None:
    save(*load(random_checkpoint), tmp_path)
    config = json.loads((tmp_path / "processor_config.json").read_text())
    assert config["video_processor"]["video_processor_type"] == "Qwen2VLVideoProcessor"
    assert config["video_processor"]["patch_size"] == 8


@pytest.mark.parametrize(
    ("path", "message"),
    [("/no/such/folder", "no checkpoint at"), ("./runs/none", "no checkpoint at"), ("nonsense", "no checkpoint at")],
)
def test_a_missing_path_is_refused_before_any_download(path: str, message: str) -> None:
    with pytest.raises(UserError, match=message):
        load(path)


def test_a_folder_without_a_config_and_a_text_model_are_refused(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"config\.json"):
        load(str(tmp_path))
    (tmp_path / "config.json").write_text('{"model_type": "gpt2"}')
    with pytest.raises(UserError, match="cannot load"):
        load(str(tmp_path))


def test_pickled_weights_are_never_loaded(random_checkpoint: str, tmp_path: Path) -> None:
    model, processor = load(random_checkpoint)
    save(model, processor, tmp_path)
    torch.save(model.state_dict(), tmp_path / "pytorch_model.bin")
    (tmp_path / "model.safetensors").unlink()
    with pytest.raises(UserError, match="cannot load"):
        load(str(tmp_path))


def test_the_parts_of_a_model_are_found_and_images_can_be_limited(random_checkpoint: str) -> None:
    model, processor = load(random_checkpoint)
    visual = model.model.visual
    merger = {id(parameter) for parameter in visual.merger.parameters()}
    assert {id(parameter) for parameter in part_parameters(model, "projector")} == merger
    tower = {id(parameter) for parameter in part_parameters(model, "vision")}
    assert not tower & merger
    assert tower | merger == set(map(id, visual.parameters()))
    limit_pixels(processor, 1024)
    assert processor.image_processor.size["longest_edge"] == 1024
    for part in ("vision", "projector"):
        with pytest.raises(UserError, match=f"Linear has no part that we know as its {part}"):
            part_parameters(torch.nn.Linear(2, 2), part)


def test_four_bits_need_the_package_and_a_gpu_and_adapters(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(modeling, "find_spec", lambda name: None)
    with pytest.raises(UserError, match=r"needs bitsandbytes: pip install -e '\.\[qlora\]'"):
        check_quantizable()
    monkeypatch.setattr(modeling, "find_spec", lambda name: name)
    monkeypatch.setattr("torch.accelerator.is_available", lambda: False)
    with pytest.raises(UserError, match="needs a GPU"):
        check_quantizable()
    with pytest.raises(UserError, match=r"add model\.lora"):
        ModelBlock(path="x", quantize="4bit")


def test_all_linear_layers_but_the_last_are_held_in_nf4_and_computed_in_bfloat16(random_checkpoint: str) -> None:
    model = load(random_checkpoint, quantize="4bit")[0]
    linear = {name: module for name, module in model.named_modules() if isinstance(module, torch.nn.Linear)}
    assert [name for name, module in linear.items() if not isinstance(module, bnb.nn.Linear4bit)] == ["lm_head"]
    layer = linear["model.language_model.layers.0.self_attn.q_proj"]
    assert (layer.weight.quant_type, layer.compute_dtype) == ("nf4", torch.bfloat16)
    assert layer.weight.numel() == 128 * 128 / 2  # two weights a byte


def test_adapters_learnt_on_rounded_weights_are_merged_into_the_unrounded_ones(random_checkpoint: str) -> None:
    start = load(random_checkpoint)[0].state_dict()
    rounded = load(random_checkpoint)[0]
    with torch.no_grad():
        for layer in (module for module in rounded.modules() if isinstance(module, torch.nn.Linear)):
            layer.weight.copy_((layer.weight * 16).round() / 16)  # stands for nf4, which has no exact values
    settings = ModelBlock(path=random_checkpoint, quantize="4bit", lora={"r": 2, "alpha": 4})
    policy = get_peft_model(rounded, LoraConfig(r=2, lora_alpha=4, target_modules=["q_proj"], init_lora_weights=False))
    learnt = {name: m.get_delta_weight("default") for name, m in policy.named_modules() if name.endswith("q_proj")}
    assert learnt
    found = merge(policy, random_checkpoint, settings).state_dict()
    for name, value in found.items():
        delta = learnt.get(f"base_model.model.{name.removesuffix('.weight')}", 0)
        torch.testing.assert_close(value, start[name] + delta)
