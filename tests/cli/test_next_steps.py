"""Every command names the next useful one, also if it found faults."""

import ast
import json
from collections.abc import Callable, Iterator
from pathlib import Path

import click
import pytest
import typer

import emor3.cli
from emor3.cli.main import app
from emor3.cli.next_steps import NEXT, say_next
from made_up import prediction, save_evaluation


def commands(group: click.Command, *above: str) -> Iterator[str]:
    """Names of all commands below a group, as a person types them."""
    for name, command in getattr(group, "commands", {}).items():
        if hasattr(command, "commands"):
            yield from commands(command, *above, name)
        else:
            yield " ".join((*above, name))


def test_every_command_has_a_next_one() -> None:
    every = set(commands(typer.main.get_command(app)))
    with_next = {name for name in every if any(way == name or way.startswith(f"{name} ") for way in NEXT)}
    assert every == with_next
    assert {way for way in NEXT if not any(way == name or way.startswith(f"{name} ") for name in every)} == set()


def test_every_next_step_is_said_by_some_command() -> None:
    said = set()
    for path in Path(emor3.cli.__path__[0]).glob("*.py"):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.Call) and ast.unparse(node.func) == "say_next":
                said.add(ast.literal_eval(node.args[0]))
    assert said == NEXT.keys()


@pytest.mark.parametrize("way", NEXT)
def test_a_next_step_is_one_short_line_whose_commands_exist(way: str, capsys: pytest.CaptureFixture[str]) -> None:
    places = dict.fromkeys(("folder", "run", "model", "page", "recipe", "memory"), "x") | {"folders": ["x"]}
    say_next(way, **places)
    told = capsys.readouterr()
    assert told.out == ""
    assert told.err.startswith("next: ")
    assert told.err.count("\n") == 1
    assert len(told.err) <= 120
    every = set(commands(typer.main.get_command(app)))
    for called in told.err.split("emor3 ")[1:]:
        first, second = [*called.replace(",", " ").replace(";", " ").split(), ""][:2]
        assert {first, f"{first} {second}"} & every, called


@pytest.mark.parametrize(
    ("arguments", "status", "told"),
    [
        (("data", "check", "{folder}/twice", "--rows-only"), 1, "with --faults FILE"),
        (
            ("plan", "emoset_3b_lora_1x24gb", "--memory", "2"),
            1,
            "emor3 plan emoset_3b_lora_1x24gb with --set KEY=VALUE",
        ),
        (("runs", "{folder}/empty"), 0, "emor3 train quickstart"),
        (("score", "{folder}/bad.jsonl"), 1, "emor3 train RECIPE"),
    ],
)
def test_the_last_line_names_what_comes_next_whatever_was_found(
    main_with: Callable[..., int],
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    arguments: tuple[str, ...],
    status: int,
    told: str,
) -> None:
    for name in ("twice", "empty"):
        (tmp_path / name).mkdir()
    rows = [{"file_name": "a.png", "label": label, "split": "train"} for label in ("joy", "fear")]
    (tmp_path / "twice" / "metadata.jsonl").write_text("".join(f"{json.dumps(row)}\n" for row in rows))
    (tmp_path / "bad.jsonl").write_text("no JSON\n")
    assert main_with(*(argument.format(folder=tmp_path) for argument in arguments)) == status
    last = capsys.readouterr().err.splitlines()[-1]
    assert last.startswith("next: ")
    assert told.format(folder=tmp_path) in last


def test_what_comes_next_is_said_beside_the_output_and_spelt_for_a_shell(
    main_with: Callable[..., int], tmp_path: Path, capsys: pytest.CaptureFixture[str], few_draws: None
) -> None:
    folders = [tmp_path / "a b", tmp_path / "c"]
    for folder in folders:
        save_evaluation(folder, {"d": [prediction("joy", "joy", id="1"), prediction("fear", "joy", id="2")]})
    assert main_with("compare", *folders) == 0
    told = capsys.readouterr()
    assert told.err == f"next: emor3 report '{folders[0]}' {folders[1]}\n"
    assert "next:" not in told.out
