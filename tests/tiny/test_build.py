"""Building the embedded base: same seed same weights, losses fall, and every example teaches what it says."""

import re
from dataclasses import replace
from pathlib import Path
from random import Random

import pytest
import torch
from safetensors.torch import load_file
from transformers import ProcessorMixin
from typer.testing import CliRunner

from build_tiny import (
    FACTOR_WEIGHT,
    HARD,
    Batcher,
    BuildSettings,
    Probes,
    build,
    supervised_loss,
    tokenizer_texts,
    write,
)
from emor3.cli.main import app
from emor3.method.labels import MASK
from emor3.models.checkpoints import resolve_checkpoint
from emor3.tiny.world import FACTORS, Scene
from tiny_examples import (
    CONFUSED,
    CONFUSIONS,
    MIX,
    coherence_example,
    consistency_example,
    felt_shade,
    thinking_example,
)
from tiny_model import build_model, build_processor, build_tokenizer


@pytest.fixture(scope="module")
def processor() -> ProcessorMixin:
    return build_processor(build_tokenizer(tokenizer_texts(rounds=200)))


SHORT = BuildSettings(
    vision_steps=1,
    vision_batch=4,
    steps=2,
    mix=tuple((make, 2) for make, _ in MIX),
    tokenizer_rounds=100,
    threads=1,  # two crawl on busy cores
)
SHORT_HARD = replace(SHORT, hard=True, steps=3, schedule=6, peak_rate=HARD.peak_rate)


@pytest.mark.slow
def test_the_same_seed_builds_the_same_weights_and_another_seed_does_not(tmp_path: Path) -> None:
    built = []
    for name, seed in (("first", 0), ("second", 0), ("other", 1)):
        build(tmp_path / name, seed, lambda losses: None, SHORT)
        built.append(load_file(tmp_path / name / "model.safetensors"))
    first, second, other = built
    assert all(torch.equal(first[name], second[name]) for name in first)
    assert not all(torch.equal(first[name], other[name]) for name in first)


def test_the_base_is_written_with_its_losses_shown_and_never_over_another_folder(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    write(tmp_path / "base", 0, SHORT)
    shown = "".join(capsys.readouterr())
    assert (tmp_path / "base" / "model.safetensors").is_file()
    assert "3 of 3" in shown
    assert re.search(r"consistency \d\.\d{3}", shown)
    again = CliRunner().invoke(app, ["tiny", "build", str(tmp_path / "base")])
    assert "exists and is not empty" in str(again.exception)


@pytest.mark.slow
def test_the_hard_base_goes_on_from_the_shipped_one_with_its_tokenizer(tmp_path: Path) -> None:
    easy = Path(resolve_checkpoint("embedded"))
    for name in "ab":
        build(tmp_path / name, 0, lambda losses: None, SHORT_HARD)
    first, again = (load_file(tmp_path / name / "model.safetensors") for name in "ab")
    before = load_file(easy / "model.safetensors")
    assert all(torch.equal(first[name], again[name]) for name in before)
    moved = max((first[name] - weights).abs().max().item() for name, weights in before.items())
    assert 0 < moved < 0.02  # four steps of Adam at up to 1e-3 each, over weights of up to 1
    texts = [(folder / "tokenizer.json").read_text() for folder in (easy, tmp_path / "a")]
    assert texts[0] == texts[1]


def test_hard_questions_are_near_misses() -> None:
    rng = Random(3)
    for question in [consistency_example(rng, True) for _ in range(50)]:
        words = set(re.findall(r"\w+", question.prompt.split("Text:")[1].casefold()))
        named = [words & set(values) for values in FACTORS.values()]
        assert sum(not values <= set(vars(question.checked_against).values()) for values in named) <= 1


def test_only_the_reply_and_its_end_are_learnt_and_factor_words_weigh_more(processor: ProcessorMixin) -> None:
    example = thinking_example(Random(0))
    batch = Batcher(processor)([example])
    learned = batch.inputs["input_ids"][0][batch.weights[0] > 0]
    assert processor.tokenizer.decode(learned) == f"{example.reply}<|im_end|>"
    heavy = batch.inputs["input_ids"][0][batch.weights[0] == FACTOR_WEIGHT]
    assert len(heavy) == 3  # object, face, surroundings, once each


def test_the_probe_learns_at_the_words_that_do_not_fit_the_picture(processor: ProcessorMixin) -> None:
    rng = Random(0)
    examples = [consistency_example(rng) for _ in range(40)]
    misfits = Batcher(processor)(examples).misfits
    assert misfits is not None
    for example, row in zip(examples, misfits, strict=True):
        assert (row >= 0).sum() <= 3  # a partial description names fewer factors
        assert (row == 1).any() == (example.reply == "No")


def test_a_yes_stands_for_a_description_without_a_wrong_factor_however_little_it_says() -> None:
    rng = Random(1)
    partial = 0
    for _ in range(200):
        example = consistency_example(rng)
        words = set(re.findall(r"\w+", example.prompt.split("Text:")[1].casefold()))
        named = [words & set(values) for values in FACTORS.values()]
        wrong = [values for values in named if not values <= set(vars(example.checked_against).values())]
        assert (example.reply == "Yes") == (not wrong)
        partial += not all(named)
    assert 10 < partial < 60  # 15% of 200 are 30


def test_a_masked_text_names_no_label_and_still_leads_to_one() -> None:
    rng = Random(2)
    masked = [e for e in (coherence_example(rng) for _ in range(200)) if MASK in e.prompt]
    assert len(masked) > 30
    for example in masked:
        options, text = example.prompt.split("one of: ")[1].split("\nText:")
        assert example.reply in options
        assert not set(re.findall(r"\w+", text.casefold())) & set(options.rstrip(".").split(", "))


def test_the_prior_mismatch_is_as_large_as_stated() -> None:
    # Three factors of fear leave no other shade a chance worth counting once the posterior is squared.
    rng = Random(0)
    told = [felt_shade(Scene("spider", "trembling", "alley"), rng) for _ in range(2000)]
    assert told.count(CONFUSIONS["fear"]) / 2000 == pytest.approx(CONFUSED, abs=0.05)


def test_a_single_example_can_be_learnt_by_heart(processor: ProcessorMixin) -> None:
    torch.manual_seed(0)
    model = build_model(processor.tokenizer)
    probes = Probes(model.config.text_config.hidden_size)
    batch = Batcher(processor)([consistency_example(Random(0))])
    optimizer = torch.optim.AdamW([*model.parameters(), *probes.parameters()], lr=3e-3)
    losses = []
    for _ in range(12):
        loss = sum(supervised_loss(model, probes, batch))
        losses.append(loss.item())
        loss.backward()
        optimizer.step()
        optimizer.zero_grad()
    assert losses[-1] < 0.2 * losses[0]
