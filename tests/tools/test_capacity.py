"""Plans count what is there to count, and their rule of thumb for activations is held against a measurement."""

import math
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from PIL import Image
from torch.autograd.graph import saved_tensors_hooks
from typer.testing import CliRunner

import layouts
from architectures import write_checkpoint
from clips import clip_folders
from emor3.cli.main import app
from emor3.data.folders import load_samples
from emor3.data.importers.importing import import_data
from emor3.errors import UserError
from emor3.judges.moving_average import MovingAverage
from emor3.method.thinking import sample_prompt
from emor3.models.architectures import PUBLISHED
from emor3.models.checkpoints import load, resolve_checkpoint
from emor3.models.generation import encode, text_tokens
from emor3.models.processors import load_processor
from emor3.runs.recipe import Recipe, build_recipe
from emor3.tiny.drawing import SIZE
from emor3.tools.capacity import (
    TEXT_TOKENS,
    Machine,
    estimate_memory,
    longest_prompt,
    mask_bytes,
    model_config,
    packed_rows,
    probe,
    size_of,
    update_bytes,
    ways_to_fit,
)
from emor3.training.trl_config import grpo_config

QWEN_3B, QWEN_7B, SMALL = PUBLISHED
AREAS = (None, 262_144)


def recipe_of(path: Any = QWEN_3B, grpo: Any = None, **changes: Any) -> Any:
    content = {
        "output_dir": "runs/x",
        "model": {"path": path, "dtype": "bfloat16", "max_pixels": 401408} | changes.pop("model", {}),
        "data": {"train": "data/none", "limit": 100},
        "grpo": {"per_device_train_batch_size": 4, "num_generations": 4, "bf16": True} | (grpo or {}),
    }
    return build_recipe(content | changes, [], "here")


def needs(recipe: Recipe, machine: Any = None) -> Any:
    return estimate_memory(recipe, model_config(recipe.model.path, None), machine or Machine())


def test_the_known_configurations_give_the_published_numbers_of_parameters() -> None:
    assert size_of(recipe_of(QWEN_3B), model_config(QWEN_3B, None)).parameters == 3_754_622_976
    assert size_of(recipe_of(QWEN_7B), model_config(QWEN_7B, None)).parameters == 8_292_166_656


def test_the_small_model_has_the_size_of_its_file_and_as_many_tokens_as_its_tiles() -> None:
    whole, limited = (
        size_of(recipe_of(SMALL, model={"max_pixels": most}), model_config(SMALL, None)) for most in AREAS
    )
    assert whole.parameters == 256_484_928  # in bfloat16 the 513 MB of its model.safetensors
    # A tile of 512 x 512 is 32 x 32 patches of 16, and four by four of them become one token: 64. Four by four tiles,
    # and the whole image beside them: 17.
    assert (whole.image_tokens, whole.patches) == (17 * 64, 17 * 1024)
    assert (limited.image_tokens, limited.patches) == (64, 1024)


def test_weights_gradients_optimizer_and_reference_follow_from_the_parameters() -> None:
    n = 3_754_622_976
    # What learns is float32: 4 bytes of weight, 4 of gradient, 8 of Adam's two moments; the reference is bfloat16.
    fixed = needs(recipe_of(grpo={"beta": 0.01})).fixed
    assert list(fixed.values()) == [4 * n, 2 * n, 0, 4 * n, 8 * n, 0]  # the policy judges
    assert needs(recipe_of(grpo={"beta": 0.01}, model={"dtype": "auto"})).fixed["reference"] == 4 * n  # as the policy
    assert needs(recipe_of(grpo={"beta": 0.0})).fixed["reference"] == 0
    assert needs(recipe_of(grpo={"optim": "adamw_8bit"})).fixed["optimizer"] == 2 * n
    # ZeRO-3 learns in a float32 copy beside bfloat16 weights and gradients: 4 + 8 bytes.
    assert needs(recipe_of(), Machine(1, 80e9, "zero3")).fixed["optimizer"] == 12 * n
    # FSDP2 keeps everything in float32, over 8 GPUs: (4 + 4 + 4 + 8) / 8 bytes each.
    sharded = needs(recipe_of(grpo={"beta": 0.01}), Machine(8, 80e9, "fsdp2"))
    assert sum(sharded.fixed.values()) == pytest.approx(20 * n / 8)


def test_lora_trains_the_adapters_only_and_needs_no_second_model() -> None:
    found = needs(recipe_of(model={"lora": {"r": 16}}, grpo={"beta": 0.01}))
    assert found.size.trainable < found.size.parameters / 50
    assert found.fixed["reference"] == 0
    assert found.fixed["optimizer"] == 8 * found.size.trainable


def test_four_bits_hold_all_linear_layers_but_the_last() -> None:
    found = needs(recipe_of(model={"lora": {"r": 16}, "quantize": "4bit"}))
    size, embeddings = found.size, 151936 * 2048  # the last layer is tied to them
    assert 0.9 * (size.parameters - embeddings) < size.four_bit < size.parameters - embeddings
    # Four bits, a byte of scale for 64 weights and four bytes for 256 of these scales.
    held = size.four_bit * (1 / 2 + 1 / 64 + 1 / 4096) + (size.parameters - size.four_bit) * 2
    assert found.fixed["weights"] == pytest.approx(held + 4 * size.trainable)  # float32 adapters


def bytes_of(model: torch.nn.Module) -> int:
    return sum(parameter.numel() * parameter.element_size() for parameter in model.parameters())


@pytest.mark.parametrize(("dtype", "machine"), [("bfloat16", Machine()), ("auto", Machine(8, 80e9, "fsdp2"))])
def test_a_judge_that_is_another_checkpoint_is_counted_with_its_own_size_on_each_gpu(
    dtype: str, machine: Machine, tmp_path: Path
) -> None:
    write_checkpoint("qwen3_vl", tmp_path)
    judge, model = {"model": "checkpoint", "path": str(tmp_path)}, {"dtype": dtype}
    found, policy = needs(recipe_of(judge=judge, model=model), machine), needs(recipe_of(model=model), machine)
    assert found.fixed["judge"] == bytes_of(load(str(tmp_path), dtype)[0])
    assert found.fixed | {"judge": 0} == policy.fixed
    assert found.phases["reflection"] < policy.phases["reflection"] / 100  # hidden 32 in 2 layers, not 2048 in 36
    assert found.phases["rollout"] == policy.phases["rollout"]


def test_a_moving_average_is_counted_as_a_copy_of_all_weights_in_float32(
    random_checkpoint: str, tmp_path: Path
) -> None:
    judged = {"model": {"max_pixels": None, "freeze": ["vision"]}, "judge": {"model": "ema"}}
    found = needs(recipe_of(random_checkpoint, **judged))
    policy, _ = load(random_checkpoint, "float32")  # as weights that learn are loaded
    assert found.fixed["judge"] == bytes_of(MovingAverage(policy, 0.9, tmp_path, None).model)


def test_the_start_model_as_judge_is_one_more_model_if_there_is_no_kl_reference() -> None:
    def judge(beta: float, **model: Any) -> Any:
        found = needs(recipe_of(grpo={"beta": beta}, model=model, judge={"model": "reference"}))
        return found.fixed["judge"], found.size

    n = 3_754_622_976
    assert judge(0.01)[0] == 0  # the KL reference serves
    assert judge(0.0)[0] == 2 * n
    assert judge(0.01, lora={"r": 16})[0] == 2 * n
    held, size = judge(0.01, lora={"r": 16}, quantize="4bit")
    assert held == size.four_bit * (1 / 2 + 1 / 64 + 1 / 4096) + (n - size.four_bit) * 2


def test_a_judge_without_a_configuration_is_refused_with_what_to_do(tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text("{}")
    with pytest.raises(UserError, match=r"no configuration of .*; give a folder that holds its config\.json"):
        needs(recipe_of(judge={"model": "checkpoint", "path": str(tmp_path)}))


def test_no_change_that_a_moving_average_cannot_follow_is_named_beside_it() -> None:
    machine = Machine(2, 24e9)
    ways = list(ways_to_fit(recipe_of(judge={"model": "ema", "every": 5}), model_config(QWEN_3B, None), machine))
    changes = [change for change, _, _ in ways]
    assert changes.index("judge.model=policy") < changes.index("recipes/accelerate/fsdp2.yaml")
    assert ways[changes.index("judge.model=policy")][1].fixed["judge"] == 0


def test_tokens_cache_and_steps_are_counted() -> None:
    found = needs(recipe_of(grpo={"gradient_accumulation_steps": 2, "num_train_epochs": 3}), Machine(gpus=2))
    assert found.size.image_tokens == 512  # 401,408 / 28 squared
    assert found.size.cache_numbers == 2 * 36 * 2 * 128  # keys and values, layers, heads, width
    assert found.work.rollouts == 8
    assert found.steps == math.ceil(3 * 100 / (4 * 2 * 2 / 4))


@pytest.mark.parametrize(("accumulated", "steps"), [(3, 200), (7, 86)])  # 100 samples in groups of 2, 3 times
def test_a_plan_counts_the_steps_that_a_run_takes(accumulated: int, steps: int) -> None:
    grpo = {"per_device_train_batch_size": 1, "num_generations": 2, "num_iterations": 3, "num_train_epochs": 1}
    grpo |= {"gradient_accumulation_steps": accumulated, "steps_per_generation": 2 * accumulated, "save_steps": 6}
    recipe = recipe_of(grpo=grpo)
    assert grpo_config(recipe, Path("x"), 100).max_steps == needs(recipe).steps == steps


def test_the_completions_of_a_prompt_share_it_unless_they_are_recomputed() -> None:
    def update(**grpo: Any) -> Any:
        return needs(recipe_of(model={"freeze": ["vision"]}, grpo={"max_completion_length": 100} | grpo)).phases[
            "update"
        ]

    # Tensors of a layer kept for a token: 11 of width 2048 and 4 of width 11008, 2 bytes each, in 36 layers.
    token, prompt = 36 * 2 * (11 * 2048 + 4 * 11008), 512 + 200
    # Logits of 32,768 words for each of 4 x 100 tokens, gradients of the head's input and weights.
    head = 4 * 100 * 32768 * 2 + 4 * 2048 * (4 * 100 + 151936)
    copied = 4 * prompt * (2 * 36 * 2048) * 2  # keys and values of the prompt, for each completion and each head
    assert update(gradient_checkpointing=False) == (prompt + 4 * 100) * token + copied + head
    sharded = needs(
        recipe_of(model={"freeze": ["vision"]}, grpo={"max_completion_length": 100, "gradient_checkpointing": False}),
        Machine(2, sharding="fsdp2"),
    )
    assert sharded.phases["update"] == 4 * (prompt + 100) * token + head
    # Under checkpointing the input of each layer, for whole rows, and the head or one layer with its gradients: that
    # where there is more to read, since TRL's head takes 4,096 tokens at once.
    assert update(gradient_checkpointing=True) == 4 * (prompt + 100) * 36 * 2 * 2048 + head
    layer = 36 * 2 * 2048 + token / 36 + 3 * 2 * 11008
    assert update(gradient_checkpointing=True, max_completion_length=8000) == 4 * (prompt + 8000) * layer


def test_packed_rows_and_their_masks_are_counted_beside_separate_rows(random_checkpoint: str) -> None:
    grpo = {"per_device_train_batch_size": 8, "max_completion_length": 40, "bf16": False, "beta": 0.0}
    model = {"max_pixels": None, "freeze": ["vision"], "dtype": "float32"}
    recipe = recipe_of(random_checkpoint, grpo | {"gradient_checkpointing": True}, model=model)
    found, settings = needs(recipe), grpo_config(recipe, Path("x"), 1)
    prompt = found.work.prompt
    # Two groups of 4 completions, each group in one row: the prompt without its last token, and 4 x 40 tokens.
    assert packed_rows(settings, found.size, found.work) == (2, prompt - 1 + 160)
    # A byte for each pair, and 4 of what a float32 attention adds in its place.
    assert mask_bytes(found.size, 2, 300, 4) == 2 * 300**2 * 5
    # Layers' inputs are kept of more tokens if no two completions share a row, so that way is the dearer one.
    separate = replace(found.size, mask_kinds=0)
    assert packed_rows(settings, separate, found.work) == (0, 0)
    assert update_bytes(recipe, settings, separate, found.work, 4) == found.phases["update"]
    # Masks of a gigabyte would decide: 100 kinds of layers.
    assert update_bytes(recipe, settings, replace(found.size, mask_kinds=100), found.work, 4) > found.phases["update"]


def test_what_a_run_leaves_on_disk_is_counted_by_folder(random_checkpoint: str) -> None:
    def disk(grpo: Any, **changes: Any) -> tuple[list[float], Any]:
        model = {"max_pixels": None} | changes.pop("model", {})
        found = needs(recipe_of(random_checkpoint, {"max_steps": 100, "save_steps": 10} | grpo, model=model, **changes))
        return list(found.disk.values()), found.size

    held_out = {"evaluation": {"every": 10, "samples": 8}}
    # Full weights: 4 bytes and 8 of Adam for each; the checkpoint that is replaced goes when the new one is there.
    plain, size = disk({"save_total_limit": 2})
    n = size.parameters
    assert plain == [0, 3 * 12 * n, 0, 4 * n]
    assert disk({"save_total_limit": 2}, **held_out)[0] == [0, 3 * 12 * n, 2 * 4 * n, 4 * n]
    # Adapters alone, in all of ten checkpoints; in the end they are merged into a bfloat16 policy.
    adapters, size = disk({}, model={"lora": {"r": 16}}, **held_out)
    assert adapters == [0, 10 * 12 * size.trainable, 2 * 4 * size.trainable, 2 * n]


def test_prompts_are_counted_on_the_data_where_they_and_the_tokenizer_are_at_hand(
    mixed: str, random_checkpoint: str
) -> None:
    def prompt(path: Any, data: Any) -> Any:
        return longest_prompt(recipe_of(path, model={"max_pixels": None}, data={"train": data}))

    _, processor = load(random_checkpoint)
    longest = max(load_samples(mixed, split="train"), key=lambda sample: len(sample.text or ""))
    turn = encode(processor, [((), sample_prompt(longest, "steps"))])["input_ids"]
    assert prompt(random_checkpoint, mixed) == (2, turn.shape[1])  # one row has two images
    assert prompt(QWEN_3B, mixed) == (2, TEXT_TOKENS)
    assert prompt(random_checkpoint, "data/none") == (1, TEXT_TOKENS)


def test_a_plan_counts_all_frames_of_a_clip_and_what_is_said_of_them(tmp_path: Path) -> None:
    clip_folders(tmp_path / "src", each=1)
    import_data("clips", str(tmp_path / "src"), tmp_path / "data", frames=3, test_share=0)
    layouts.image(tmp_path / "data/photo.png", size=(64, 64))
    with (tmp_path / "data/metadata.jsonl").open("a") as file:
        file.write('{"file_name": "photo.png", "label": "calm"}\n')
    recipe = recipe_of("embedded", model={"max_pixels": None}, data={"train": str(tmp_path / "data")})
    images, tokens = longest_prompt(recipe)
    clip = load_samples(str(tmp_path / "data"))[0]
    assert images == 3
    assert tokens == text_tokens(load_processor(resolve_checkpoint("embedded")), sample_prompt(clip, "steps"))
    config = model_config("embedded", None)
    work = estimate_memory(recipe, config, Machine()).work
    assert work.images == 3
    assert work.prompt - work.text == 3 * size_of(recipe, config).image_tokens


def test_what_does_not_fit_is_told_with_changes_of_which_the_last_one_fits() -> None:
    recipe, machine = recipe_of(grpo={"gradient_checkpointing": False}), Machine(1, 24e9)
    assert not needs(recipe, machine).fits(machine)
    ways = list(ways_to_fit(recipe, model_config(QWEN_3B, None), machine))
    assert [found.fits(other) for _, found, other in ways] == [False] * (len(ways) - 1) + [True]
    assert "lora" in ways[-1][0]


@pytest.mark.slow
@pytest.mark.parametrize(
    ("architecture", "error"),
    [("qwen2_5_vl", 0.1), ("qwen3_vl", 0.2), ("llava", 0.1), ("gemma3", 0.5), ("idefics3", 0.2)],
)
def test_the_activations_of_an_update_are_near_those_that_autograd_keeps(
    architecture: str, error: float, tmp_path: Path
) -> None:
    write_checkpoint(architecture, tmp_path)
    model, processor = load(str(tmp_path))
    size = size_of(
        build_recipe({"output_dir": "x", "model": {"path": str(tmp_path)}, "data": {"train": "x"}}, [], "x"),
        model.config,
    )
    picture = tmp_path / "a.png"
    Image.new("RGB", (SIZE, SIZE), "teal").save(picture)
    inputs = encode(processor, [((str(picture),), "What is felt here, and why? " * 10)] * 4)
    tokens = inputs["input_ids"].shape[1]
    own, kept = {parameter.untyped_storage().data_ptr() for parameter in model.parameters()}, {}

    def keep(tensor: Any) -> Any:
        storage = tensor.untyped_storage()
        if storage.data_ptr() not in own:
            kept[storage.data_ptr()] = storage.nbytes()
        return tensor

    with saved_tensors_hooks(keep, lambda tensor: tensor):
        read = model.base_model(**inputs).last_hidden_state
    assert read.isfinite().all()
    estimate = size.text.saved(4 * tokens, 4, False) + size.vision.saved(4 * size.patches, 4, False)
    assert estimate == pytest.approx(sum(kept.values()), rel=error)


def test_a_model_whose_images_have_no_known_number_of_tokens_is_refused(tmp_path: Path) -> None:
    write_checkpoint("llava_onevision", tmp_path)  # tiles, as many as the image's shape asks for
    with pytest.raises(UserError, match="how many tokens an image of llava_onevision has"):
        needs(recipe_of(str(tmp_path), model={"max_pixels": None}))


def test_the_command_refuses_with_status_1_and_names_a_change(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    recipe = tmp_path / "recipe.yaml"
    recipe.write_text(f"output_dir: runs/x\nmodel: {{path: {QWEN_7B}}}\ndata: {{train: data/none}}\n")
    done = CliRunner().invoke(app, ["plan", str(recipe), "--memory", "24"])
    assert done.exit_code == 1
    assert "unknown: the data are not at hand" in done.output
    assert "model.lora" in done.output


def test_a_model_without_a_configuration_and_a_recipe_without_reinforcement_are_refused(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def silent(*_: Any, **__: Any) -> Any:
        raise OSError("no network")

    monkeypatch.setattr("emor3.models.checkpoints.get_hf_file_metadata", silent)
    with pytest.raises(UserError, match="--config"):
        model_config("no-such/model", None)
    recipe = recipe_of(cold_start={}).model_copy(update={"grpo": None})
    with pytest.raises(UserError, match="no grpo block"):
        needs(recipe)


@pytest.mark.slow
def test_the_time_of_a_step_is_measured(scenes: str, random_checkpoint: str) -> None:
    grpo = {"num_generations": 2, "per_device_train_batch_size": 4, "max_completion_length": 4, "save_steps": 1}
    content = {"output_dir": "x", "model": {"path": random_checkpoint}, "data": {"train": scenes}, "grpo": grpo}
    assert probe(build_recipe(content | {"judge": {"calibration": 0}}, [], "here")) > 0
