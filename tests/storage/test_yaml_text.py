"""YAML of others: read as it is written, and refused in one line where it is broken or would fill the memory."""

import time
from pathlib import Path
from typing import Any

import pytest

from emor3.data.folders import label_set_for
from emor3.errors import UserError
from emor3.experiments.plan import load_plan
from emor3.runs.recipe import load_recipe
from emor3.storage.yaml_text import MOST, parse_yaml, read_yaml

LEVELS = 30
BOMB = "\n".join(
    ["a0: &a0 [x, y]", *(f"a{n}: &a{n} [{', '.join([f'*a{n - 1}'] * 10)}]" for n in range(1, LEVELS))]
)  # 2 x 10^29 values
MERGES = "a0: &a0 {x: 1}\n" + "\n".join(f"a{n}: &a{n} {{<<: [{', '.join([f'*a{n - 1}'] * 10)}]}}" for n in range(1, 9))


def test_aliases_and_merges_of_ordinary_size_are_read() -> None:
    text = "base: &base {lr: 1e-5, steps: [1, 2]}\nfirst: {<<: *base, seed: 3}\nsecond: *base\n"
    base = {"lr": "1e-5", "steps": [1, 2]}
    assert parse_yaml(text, "this") == {"base": base, "first": {**base, "seed": 3}, "second": base}
    assert parse_yaml("", "this") is parse_yaml("# nothing", "this") is None


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (BOMB, "its aliases"),
        (MERGES, "its aliases"),
        (f"a: &a {'x' * 1000}\nb: [{', '.join(['*a'] * 1000)}]", "its aliases"),
        ("a: &a [*a]", "an anchor .* holds an alias of itself"),
        ("a: &a {b: {c: *a}}", "an anchor .* holds an alias of itself"),
        ("1" + ":1" * 50_000, "a number of 100,001 characters"),
        ("x" * (MOST + 1), "more than 200,000 characters"),
        ("[" * 5000, "is not YAML"),
        ("a: \x1b", "is not YAML"),
        ("--- a\n--- b", "is not YAML"),
        ("a: 2026-13-01", "is not YAML"),
    ],
    ids=[
        *("aliases", "merges", "a long text", "itself", "itself below", "a number", "long", "deep", "a control"),
        *("two documents", "a date"),
    ],
)
def test_what_would_fill_the_memory_or_is_broken_is_refused_at_once(text: str, message: str) -> None:
    started = time.process_time()
    with pytest.raises(UserError, match=f"this is.*{message}|this {message}") as refused:
        parse_yaml(text, "this")
    assert "\n" not in str(refused.value)
    assert time.process_time() - started < 5


@pytest.mark.parametrize(
    "load",
    [
        load_recipe,
        lambda path: load_plan(path, None, quick=False),
        lambda path: label_set_for(str(path), ()),
        lambda path: load_recipe("recipes/quickstart.yaml", [f"grpo={{{path.read_text().replace(chr(10), ', ')}}}"]),
    ],
    ids=["recipe", "plan", "label set", "--set"],
)
def test_no_door_lets_a_bomb_in(load: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "bomb.yaml"
    path.write_text(BOMB)
    with pytest.raises(UserError, match="its aliases"):
        load(path)


@pytest.mark.parametrize("place", ["learning_rate: *b", "x: {y: *b}", "*b"])
def test_a_bomb_inside_the_grpo_block_is_refused_before_anything_looks_at_it(tmp_path: Path, place: str) -> None:
    lines = BOMB.replace(f"a{LEVELS - 1}: &a{LEVELS - 1}", "b: &b")
    block = f"grpo: {place}" if place == "*b" else f"grpo:\n  {place}"
    path = tmp_path / "recipe.yaml"
    path.write_text(f"{lines}\noutput_dir: o\nmodel: {{path: embedded}}\ndata: {{train: d}}\n{block}\n")
    with pytest.raises(UserError, match=r"the recipe .*recipe\.yaml is too long: its aliases"):
        load_recipe(path)


def test_a_long_file_is_read_no_further_than_a_text_may_be_long(tmp_path: Path) -> None:
    long = tmp_path / "long.yaml"
    long.write_text("x" * 200_001)
    with pytest.raises(UserError, match="more than 200,000 characters"):
        read_yaml(long, "recipe")
