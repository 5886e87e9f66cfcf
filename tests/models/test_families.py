"""What docs/models.md says of each family of models is what its tiny random checkpoint does."""

import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
from PIL import Image
from test_architectures import recipe_of, same, weights_of
from transformers import AutoConfig
from trl import GRPOTrainer

from architectures import ALL, HERE, write_checkpoint
from build_tiny import tokenizer_texts
from emor3.errors import UserError
from emor3.evaluation.evaluate import evaluate, load_candidate
from emor3.evaluation.settings import EvaluationSettings
from emor3.models.architectures import (
    can_be_split,
    cuts_tiles,
    is_limited,
    largest_area,
    largest_image,
    limit_pixels,
    overwrites_states,
    takes_masks,
)
from emor3.models.checkpoints import load
from emor3.models.generation import encode
from emor3.models.processors import load_processor, save_processor
from emor3.runs.predictions import read_evaluation
from emor3.runs.records import read_jsonl
from emor3.tools.export import export
from emor3.training.run import train
from emor3.training.trainer import EmoTrainer
from family_table import FAMILIES, NOT_THE_UPDATE, ONE_TILE, PAGE, with_table
from further_architectures import FURTHER, NEEDS, of_paligemma2
from steps import writes
from tiny_model import build_tokenizer

WRITTEN = "<step1>fog</step1><step2>tense</step2><step3>negative, high</step3>\\boxed{fear}"
"""A completion that a judge can be asked about."""


@pytest.fixture(scope="module", params=HERE)
def family(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> tuple[str, str]:
    folder = tmp_path_factory.mktemp(request.param)
    write_checkpoint(request.param, folder)
    return request.param, str(folder)


def test_the_page_has_the_table_as_it_is_declared() -> None:
    page = PAGE.read_text(encoding="utf-8")
    assert page == with_table(page), "run: python tests/support/family_table.py"
    assert FAMILIES.keys() == ALL.keys()
    assert {name: said.needs for name, said in FAMILIES.items() if said.needs} == NEEDS


def test_what_is_declared_of_a_family_is_what_its_checkpoint_does(family: tuple[str, str], tmp_path: Path) -> None:
    name, folder = family
    model, processor = load(folder)
    splits = [can_be_split({**encode(processor, [asked]), "num_images": [1]}) for asked in _pictures(tmp_path)]
    said = FAMILIES[name]
    assert splits == {False: [False, False], ONE_TILE: [True, False]}.get(said.read_once, [True, True])
    assert (said.read_once == NOT_THE_UPDATE) == (any(splits) and overwrites_states(model.config))
    assert said.packed == (takes_masks(model.config) and any(splits))
    assert said.encoded_once == (not cuts_tiles(model.config))
    assert said.limited == is_limited(processor)


def _pictures(folder: Path) -> list[tuple[tuple[str, ...], str]]:
    """Questions on a square picture, which no tiny processor cuts unless it must, and on a wide one."""
    asked = []
    for width in (64, 160):
        Image.effect_noise((width, 64), 80).convert("RGB").save(path := folder / f"{width}.png")
        asked.append(((str(path),), "What is felt?"))
    return asked


@pytest.mark.slow
@pytest.mark.parametrize("name", [name for name in FURTHER if name in HERE])
def test_a_family_trains_with_reflection_resumes_evaluates_and_exports(
    name: str, scenes: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    checkpoint = tmp_path / "checkpoint"
    write_checkpoint(name, checkpoint)
    whole, killed = tmp_path / "whole", tmp_path / "killed"
    whole.mkdir()
    killed.mkdir()
    recipe = recipe_of(whole, scenes, str(checkpoint), lora={"r": 2, "alpha": 4})
    ways = _ways(monkeypatch)
    with monkeypatch.context() as patched:
        writes(patched, load(str(checkpoint))[1].tokenizer, lambda count: [WRITTEN, "Fear."] * (count // 2))
        run = train(recipe)
        some = {False: {"each row"}, NOT_THE_UPDATE: {"each row", "once"}}
        assert ways == some.get(FAMILIES[name].read_once, {"once"})
        for row in read_jsonl(run / "rollouts.jsonl"):
            judged = row["reflection"]["consistency"]["verdict"] in ("supported", "refuted")
            assert judged == (row["completion"] == WRITTEN)
        final = weights_of(run / "final")
        assert not same(final, weights_of(run / "cold_start"))
        shutil.copytree(run, killed / "run")
        for folder in ("final", "checkpoints/checkpoint-2"):
            shutil.rmtree(killed / "run" / folder)
        resumed = train(recipe_of(killed, scenes, str(checkpoint), lora={"r": 2, "alpha": 4}), resume=True)
    assert same(weights_of(resumed / "final"), final)
    evaluate(load_candidate(str(run)), [scenes], EvaluationSettings(limit=2, max_new_tokens=4), tmp_path / "evaluation")
    exported = export(run, tmp_path / "exported", read_evaluation(tmp_path / "evaluation"))
    assert same(weights_of(exported), final)
    merged = export(run / "checkpoints" / "checkpoint-2", tmp_path / "from_checkpoint")
    torch.testing.assert_close(weights_of(merged), final)


def _ways(monkeypatch: pytest.MonkeyPatch) -> set[str]:
    """How the log-probabilities of the runs to come are computed: each prompt once, or each row."""
    seen: set[str] = set()
    for cls, method, way in (
        (EmoTrainer, "_from_cache", "once"),
        (GRPOTrainer, "_get_per_token_logps_and_entropies", "each row"),
    ):
        monkeypatch.setattr(cls, method, _noted(getattr(cls, method), seen, way))
    return seen


def _noted(method: Any, seen: set[str], way: str) -> Any:
    def noted(*args: Any, **kwargs: Any) -> Any:
        seen.add(way)
        return method(*args, **kwargs)

    return noted


@pytest.mark.parametrize(("area", "tokens"), [(4096, 4), (2 * 4096, 12), (4 * 4096, 16)])
def test_the_tiles_that_internvl_lays_can_be_limited(area: int, tokens: int, tmp_path: Path) -> None:
    # A picture of 160 x 64 is 2.5 times as wide as high: three tiles of 64 x 64 and the whole of it are 4 x 4 tokens,
    # two and the whole of it 3 x 4 if no more than two may be laid.
    _, processor = ALL["internvl"](build_tokenizer(tokenizer_texts(100), vocab_size=500))
    limit_pixels(processor, area)
    assert largest_area(processor) == area
    save_processor(processor, tmp_path)
    inputs = encode(load_processor(str(tmp_path)), [_pictures(tmp_path)[1]])
    assert int((inputs["input_ids"] == processor.image_token_id).sum()) == tokens
    assert can_be_split({**inputs, "num_images": [1]}) == (tokens == 4)


def test_a_plan_counts_the_tiles_that_internvl_lays() -> None:
    config = AutoConfig.for_model("internvl")
    # 448 / 14 = 32 patches on a side of a tile, of which 256 tokens are made; 12 tiles and the whole image
    assert largest_image(config, None) == (13 * 256, 13 * 1024)
    assert largest_image(config, 448**2) == (256, 1024)


def test_a_model_that_takes_no_text_without_an_image_is_refused(tmp_path: Path) -> None:
    _, processor = of_paligemma2(build_tokenizer(tokenizer_texts(100), vocab_size=500))
    save_processor(processor, tmp_path)
    with pytest.raises(UserError, match="cannot be used: it takes no text without an image, as a judge reads"):
        load_processor(str(tmp_path))
