"""The benchmark of the true size goes its whole way on a small size, and its numbers are those of the parts."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from emor3.method.thinking import parse
from emor3.models.checkpoints import EMBEDDED, load
from emor3.models.loading import load_config
from emor3.training import trainer as training
from emor3.training.trainer import Stopwatch
from true_size import compared, completion, options_of, resized, tables


def config(**text: int) -> dict[str, Any]:
    """Qwen2.5-VL-3B's, as far as it changes with the size."""
    vision = {"depth": 32, "hidden_size": 1280, "intermediate_size": 3420, "num_heads": 16, "out_hidden_size": 2048}
    vision |= {"fullatt_block_indexes": [7, 15, 23, 31]}
    rope = {"type": "mrope", "mrope_section": [16, 24, 24]}
    text = {"hidden_size": 2048, "intermediate_size": 11008, "num_hidden_layers": 36, "num_attention_heads": 16} | text
    return text | {"rope_scaling": rope, "vision_config": vision}


def test_a_smaller_model_keeps_the_geometry() -> None:
    assert resized(config(), None, None) == resized(config(), 36, 2048) == config()
    small = resized(config(), 18, 64)
    assert (small["num_hidden_layers"], small["hidden_size"], small["intermediate_size"]) == (18, 64, 344)
    assert small["num_attention_heads"] == 4  # of width 16, whose 8 frequencies are shared out as 2, 3 and 3
    assert small["rope_scaling"]["mrope_section"] == [2, 3, 3]
    vision = small["vision_config"]
    assert (vision["depth"], vision["hidden_size"], vision["out_hidden_size"]) == (16, 40, 64)
    assert vision["fullatt_block_indexes"] == [7, 15]  # those of the 16 layers that are left


def test_completions_keep_the_format_at_the_length_that_was_asked() -> None:
    tokenizer = load(EMBEDDED)[1].tokenizer
    ids = [completion(tokenizer, place, 60, ("joy", "fear")) for place in range(4)]
    assert [len(row) for row in ids] == [60] * 4
    assert len(set(map(tuple, ids))) == 4
    thoughts = [parse(tokenizer.decode(row, skip_special_tokens=True)) for row in ids]
    assert [(thought.answer, thought.problem) for thought in thoughts] == [("joy", None), ("fear", None)] * 2


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (("--width", "40"), "--width 40 is no multiple of 32"),
        (("--tokens", "12"), "--tokens 12: the format takes about 40"),
        (("--config", "none.json"), "none.json is no file: give --config"),
    ],
)
def test_options_that_cannot_be_used_end_the_script_in_one_line(
    options: tuple[str, ...], said: str, random_checkpoint: str, scenes: str, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit, match="2"):
        options_of([random_checkpoint, scenes, *options])
    assert said in capsys.readouterr().err


def in_this_process(part: Callable[..., dict[str, Any]], *arguments: Any) -> dict[str, Any]:
    return part(*arguments)


def test_nothing_is_trained_where_the_plan_does_not_fit(
    random_checkpoint: str, scenes: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("true_size.free_memory", lambda: 1000)
    with pytest.raises(SystemExit, match=r"lora: 0\.0 MB are free, the plan says .*: not run"):
        compared(options_of([random_checkpoint, scenes]), tmp_path, in_this_process)


@pytest.mark.slow
def test_all_parts_are_run_and_told_beside_the_plan(
    random_checkpoint: str, scenes: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Stopwatch, "phase", Stopwatch.phase)  # both are replaced in a part's own process
    monkeypatch.setattr(training, "shared_rollouts", training.shared_rollouts)
    options = options_of([random_checkpoint, scenes, "--ways", "lora", "trl-lora", "--tokens", "60"])
    found = compared(options, tmp_path, in_this_process)
    assert load_config(str(tmp_path / "checkpoint")).get_text_config().hidden_size == 128
    ours, theirs = found["lora"], found["trl-lora"]
    assert set(ours["trained"]["phases"]) == {"generate", "reflect", "log_probs", "update"}
    assert (ours["trained"]["steps"], ours["resumed"]["steps"], theirs["trained"]["steps"]) == (1, 1, 1)
    assert sum(ours["trained"]["phases"].values()) <= ours["trained"]["step_seconds"] * 1.05
    # Prompts of more than 100 tokens with completions of 60, two in a step.
    assert ours["tokens_per_second"] * ours["trained"]["step_seconds"] > 2 * 160
    assert set(ours["trained"]["peak_bytes_by_phase"]) == set(ours["trained"]["phases"]) | {"between phases"}
    assert ours["plan"]["peak"] > ours["plan"]["fixed"] > 0
    text = tables(found, options.ways)
    assert [part in text for part in ("generate", "reflect", "resumed", "exported")] == [True] * 4
