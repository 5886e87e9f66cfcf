"""A LoRA run's checkpoint holds adapters only: it is evaluated on the model that it was trained on."""

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from peft import LoraConfig, get_peft_model

from emor3.errors import UserError
from emor3.evaluation.adapters import load_merged
from emor3.evaluation.evaluate import load_candidate
from emor3.models.checkpoints import load, resolve_checkpoint
from emor3.models.processors import save_processor
from emor3.storage.outputs import write_json
from emor3.tools.doctor import check_model


@pytest.fixture(scope="module")
def adapters(random_checkpoint: str, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, dict[str, torch.Tensor]]:
    """A run's checkpoint with adapters that change something, and the weights that they make of the start model's."""
    run = tmp_path_factory.mktemp("lora") / "run"
    folder = run / "checkpoints/checkpoint-4"
    torch.manual_seed(0)
    model, processor = load(random_checkpoint)
    policy = get_peft_model(model, LoraConfig(r=2, target_modules="all-linear", init_lora_weights=False))
    policy.save_pretrained(folder)
    save_processor(processor, folder)
    recipe = {"output_dir": str(run), "model": {"path": random_checkpoint, "lora": {"r": 2}}, "data": {"train": "x"}}
    write_json(run / "config.json", recipe)
    write_json(run / "environment.json", {})
    return folder, policy.merge_and_unload().state_dict()


def same(found: Any, wanted: dict[str, torch.Tensor]) -> bool:
    return all(torch.equal(found[name], weight) for name, weight in wanted.items())


def test_a_checkpoint_of_a_lora_run_is_a_model_and_its_judge_the_start_model(
    adapters: tuple[Path, dict[str, torch.Tensor]], random_checkpoint: str
) -> None:
    folder, weights = adapters
    candidate = load_candidate(str(folder))
    assert same(candidate.model.state_dict(), weights)
    assert (candidate.path, candidate.judge_path) == (str(folder), random_checkpoint)
    assert not same(candidate.judge.model.state_dict(), weights)


def test_outside_a_run_the_adapters_name_their_base(
    adapters: tuple[Path, dict[str, torch.Tensor]], tmp_path: Path
) -> None:
    folder, weights = adapters
    alone = tmp_path / "alone"
    alone.mkdir()
    for name in ("adapter_config.json", "adapter_model.safetensors"):
        (alone / name).write_bytes((folder / name).read_bytes())
    assert same(load_merged(alone)[0].state_dict(), weights)
    config = json.loads((alone / "adapter_config.json").read_text())
    write_json(alone / "adapter_config.json", config | {"base_model_name_or_path": "/gone"})
    with pytest.raises(UserError, match="holds adapters of /gone, which does not load: no checkpoint at /gone"):
        load_candidate(str(alone))


def test_adapters_of_another_model_are_one_line(adapters: tuple[Path, dict[str, torch.Tensor]], tmp_path: Path) -> None:
    folder, _ = adapters
    config = json.loads((folder / "adapter_config.json").read_text())
    alone = tmp_path / "alone"
    alone.mkdir()
    write_json(alone / "adapter_config.json", config | {"base_model_name_or_path": "embedded", "r": 4})
    (alone / "adapter_model.safetensors").write_bytes((folder / "adapter_model.safetensors").read_bytes())
    with pytest.raises(UserError, match="holds adapters of embedded") as refused:
        load_candidate(str(alone))
    assert "\n" not in str(refused.value)


def test_where_a_whole_model_is_needed_a_line_says_how_to_make_one(
    adapters: tuple[Path, dict[str, torch.Tensor]],
) -> None:
    with pytest.raises(UserError, match="holds adapters, no whole model: `emor3 export"):
        resolve_checkpoint(str(adapters[0]))
    assert "emor3 export" in check_model(str(adapters[0])).detail


def test_loading_and_saving_draw_no_bars_of_other_libraries(
    random_checkpoint: str, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    model, _ = load(random_checkpoint)
    model.save_pretrained(tmp_path / "saved")
    said = capfd.readouterr()
    assert "%|" not in said.out + said.err
    assert "it/s" not in said.out + said.err
