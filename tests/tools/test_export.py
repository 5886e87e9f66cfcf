"""An export is a plain checkpoint whose card states what was trained, on what, and only figures of that policy."""

import json
import shutil
from hashlib import sha256
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from peft import LoraConfig, get_peft_model
from safetensors.torch import load_file, save_file
from transformers import AutoModelForImageTextToText

from emor3.data.folders import load_samples
from emor3.errors import UserError
from emor3.models.checkpoints import load
from emor3.models.processors import save_processor
from emor3.runs.predictions import checksum, read_evaluation
from emor3.runs.recipe import Recipe, build_recipe
from emor3.runs.records import append_jsonl
from emor3.tools import export as exporting
from emor3.tools.export import export, model_card, push, verify
from made_up import prediction, prepare_run, save_evaluation


@pytest.fixture
def run(tmp_path: Path, scenes: str, random_checkpoint: str) -> Path:
    """A run directory as training leaves it, without the training."""
    content = {"output_dir": str(tmp_path / "run"), "model": {"path": random_checkpoint}, "data": {"train": scenes}}
    folder = prepare_run(build_recipe(content, [], "here"), resume=False, overwrite=False)
    append_jsonl(folder / "metrics.jsonl", [{"step": 1}, {"step": 2}])
    shutil.copytree(random_checkpoint, folder / "final")
    return folder


def test_an_export_loads_in_plain_transformers_with_the_runs_weights(run: Path, tmp_path: Path) -> None:
    folder = export(run, tmp_path / "out")
    mine, plain = load(str(run / "final"))[0].state_dict(), AutoModelForImageTextToText.from_pretrained(folder)
    assert all(torch.equal(mine[name], value) for name, value in plain.state_dict().items())
    assert not list(folder.glob("*.bin"))


def test_the_card_names_the_data_by_checksum_and_holds_no_path_of_this_machine(
    run: Path, tmp_path: Path, scenes: str
) -> None:
    card = (export(run, tmp_path / "out") / "README.md").read_text()
    samples = load_samples(scenes, split="train")
    assert checksum([sample.id for sample in samples]) in card
    assert "24 samples of split `train`" in card
    assert f"- `scenes`: `{sha256(Path(scenes, 'metadata.jsonl').read_bytes()).hexdigest()}`" in card
    assert "2 optimizer steps" in card
    assert "Not evaluated" in card
    assert "infer the emotions of individuals" in card
    assert str(tmp_path) not in card
    assert str(scenes) not in card


def test_the_card_without_the_data_says_that_checksums_are_missing(run: Path, tmp_path: Path) -> None:
    settings = json.loads((run / "config.json").read_text())
    settings["data"]["train"] = str(tmp_path / "gone")
    (run / "config.json").write_text(json.dumps(settings))
    assert "checksums are missing" in (export(run, tmp_path / "out") / "README.md").read_text()


def test_the_card_of_a_placebo_says_that_it_is_no_model_to_use_and_names_the_forms_of_the_reward(run: Path) -> None:
    def card(**reward: Any) -> str:
        settings = json.loads((run / "config.json").read_text())
        settings["reward"] |= reward
        return model_card(run, run / "final", Recipe.model_validate(settings), None, 0.0)

    plain, placebo = card(), card(placebo=True, relative=True, advantages="separate")
    assert "an experiment and not a model to use" in placebo
    assert "Forms of the reward that were on: relative, separate advantages." in placebo
    assert "an experiment" not in plain
    assert "Forms of the reward" not in plain
    assert "not part of emor3" not in plain
    own = card(own={"brevity": {"function": "my_rewards:brevity", "weight": 0.2}})
    assert "A further part, `brevity` (weight 0.2), is code that is not part of emor3: `my_rewards:brevity`." in own


def test_the_card_states_the_figures_of_this_policy_and_refuses_those_of_another(run: Path, tmp_path: Path) -> None:
    items = [prediction("joy", "joy", id="a"), prediction("fear", None, id="b")]
    own = save_evaluation(tmp_path / "own", {"d": items}, model=str(run / "final"))
    card = (export(run, tmp_path / "out", read_evaluation(own)) / "README.md").read_text()
    assert "| d | accuracy | 50.0 [9.5, 90.5] | 2 |" in card  # Wilson for 1 of 2
    metadata = yaml.safe_load(card.split("---\n")[1])
    assert metadata["pipeline_tag"] == "image-text-to-text"
    assert {metric["type"] for metric in metadata["model-index"][0]["results"][0]["metrics"]} >= {"accuracy", "format"}
    other = save_evaluation(tmp_path / "other", {"d": items}, model="somewhere/else")
    with pytest.raises(UserError, match="evaluation of somewhere/else"):
        export(run, tmp_path / "out2", read_evaluation(other))


def test_weights_that_do_not_give_the_policys_logits_are_refused(run: Path, tmp_path: Path) -> None:
    folder = export(run, tmp_path / "out")
    model, processor = load(str(run / "final"))
    with torch.no_grad():
        model.get_input_embeddings().weight.add_(0.01)
    with pytest.raises(UserError, match="differs from the policy"):
        verify(model, processor, folder)
    with torch.no_grad():
        model.get_input_embeddings().weight.fill_(float("nan"))
    with pytest.raises(UserError, match="differs from the policy"):
        verify(model, processor, folder)


def test_what_is_no_finished_run_and_a_folder_in_use_are_refused(run: Path, tmp_path: Path) -> None:
    with pytest.raises(UserError, match="no run directory"):
        export(tmp_path / "none", tmp_path / "out")
    (tmp_path / "taken").mkdir()
    (tmp_path / "taken" / "file").touch()
    with pytest.raises(UserError, match="taken exists and is not empty"):
        export(run, tmp_path / "taken")
    shutil.rmtree(run / "final")
    with pytest.raises(UserError, match="finish the run"):
        export(run, tmp_path / "out")


def test_a_push_makes_a_private_repository_and_a_refusal_keeps_the_folder(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    calls = []

    class Hub:
        def create_repo(self, repo: Any, **settings: Any) -> str:
            calls.append((repo, settings["private"]))
            return f"https://hub/{repo}"

        def upload_folder(self, repo_id: Any, folder_path: Any, commit_message: Any) -> None:
            if repo_id == "me/refused":
                raise OSError("no space")
            calls.append((repo_id, folder_path))

    monkeypatch.setattr(exporting, "HfApi", Hub)
    assert push(tmp_path, "me/mine") == "https://hub/me/mine"
    assert calls == [("me/mine", True), ("me/mine", tmp_path)]
    with pytest.raises(UserError, match=r"is written, but .* no space"):
        push(tmp_path, "me/refused")


def damaged(folder: Path, name: str) -> None:
    content = (folder / name).read_bytes()
    (folder / name).write_bytes(content[: len(content) // 2])


def test_truncated_weights_end_an_export_on_one_line_before_anything_is_written(run: Path, tmp_path: Path) -> None:
    damaged(run / "final", "model.safetensors")
    with pytest.raises(UserError, match=r"final/model\.safetensors is damaged \(copy it anew\): [^\n]*$"):
        export(run, tmp_path / "out")
    assert not (tmp_path / "out").exists()


@pytest.fixture
def adapters(run: Path, random_checkpoint: str) -> Path:
    """A checkpoint of a LoRA run, without the training."""
    model, processor = load(random_checkpoint)
    folder = run / "checkpoints" / "checkpoint-2"
    get_peft_model(model, LoraConfig(r=2, target_modules=["q_proj"])).save_pretrained(folder)
    save_processor(processor, folder)
    return folder


def test_whole_adapters_are_exported(adapters: Path, tmp_path: Path) -> None:
    assert (export(adapters, tmp_path / "out") / "model.safetensors").is_file()


@pytest.mark.parametrize("case", ["weights cut short", "weights missing", "half of the weights", "list", "cut short"])
def test_damaged_adapters_end_an_export_on_one_line(adapters: Path, tmp_path: Path, case: str) -> None:
    weights = adapters / "adapter_model.safetensors"
    if case == "weights cut short":
        damaged(adapters, weights.name)
    elif case == "weights missing":
        weights.unlink()
    elif case == "half of the weights":
        kept = load_file(weights)
        save_file(dict(list(kept.items())[: len(kept) // 2]), weights)
    elif case == "list":
        (adapters / "adapter_config.json").write_text("[1]")
    else:
        damaged(adapters, "adapter_config.json")
    with pytest.raises(UserError, match=r"^[^\n]*adapter[^\n]*$"):
        export(adapters, tmp_path / "out")
    assert not (tmp_path / "out").exists()
