"""The command line: every command explains itself, wrong use ends with status 2, and nothing is cut at 80 columns."""

import json
import os
import re

import pytest
from PIL import Image
from typer.testing import CliRunner

import build_tiny as building
from emor3 import __version__
from emor3.cli import main as command_line

COMMANDS = {
    *(("score",), ("train",), ("evaluate",), ("compare",), ("report",), ("share",), ("predict",), ("reproduce",)),
    ("quickstart",),
    *(("data",), ("data", "check"), ("tiny",), ("tiny", "build")),
}


def run(*arguments):
    return CliRunner(env={"COLUMNS": "80"}).invoke(command_line.app, list(arguments))


def test_the_version_is_printed():
    assert run("--version").output == f"emor3 {__version__}\n"


def test_the_commands_are_listed_with_whole_sentences():
    for group in ((), ("data",), ("tiny",)):
        listed = re.findall(r"^  ([a-z]+)  +(\S.*)$", run(*group, "--help").output.split("Commands:")[1], re.M)
        assert listed
        for name, sentence in listed:
            assert sentence.endswith("."), f"{name}: {sentence}"
            assert not sentence.endswith("..."), f"{name}: {sentence}"


@pytest.mark.parametrize("command", sorted(COMMANDS), ids=" ".join)
def test_every_command_explains_itself_and_refuses_an_unknown_option(command):
    told = run(*command, "--help")
    assert (told.exit_code, run(*command, "-h").output) == (0, told.output)
    assert all(len(line) <= 80 for line in told.output.splitlines())
    wrong = run(*command, "--nonsense")
    assert wrong.exit_code == 2
    assert "No such option" in wrong.output


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["nonsense"], "No such command 'nonsense'"),
        (["data", "chekc"], "Did you mean 'check'"),
        (["train"], "Missing argument 'RECIPE'"),
        (["train", "a.yaml", "b.yaml"], "unexpected extra argument"),
        (["predict", "a.png"], "Missing option '--model'"),
        (["quickstart", "--seed", "x"], "Invalid value for '--seed'"),
        (["evaluate", "--batch-size", "0"], "Invalid value for '--batch-size'"),
        (["score", "x", "--formula", "mine"], "Invalid value for '--formula'"),
    ],
)
def test_wrong_use_ends_with_status_2_and_a_hint(arguments, message):
    result = run(*arguments)
    assert result.exit_code == 2
    assert message in result.output


def test_no_command_reports_home(monkeypatch):
    monkeypatch.delenv("HF_HUB_DISABLE_TELEMETRY", raising=False)
    monkeypatch.setattr("sys.argv", ["emor3", "--version"])
    with pytest.raises(SystemExit):
        command_line.main()
    assert os.environ.pop("HF_HUB_DISABLE_TELEMETRY") == "1"


def test_main_prints_a_fault_as_one_line_and_ends_with_status_2(monkeypatch, capsys):
    monkeypatch.setattr("sys.argv", ["emor3", "score", "no\x1b[2J\nsuch.jsonl"])
    with pytest.raises(SystemExit) as ended:
        command_line.main()
    assert ended.value.code == 2
    assert capsys.readouterr().err == "error: cannot read no\\x1b[2J such.jsonl: No such file or directory\n"


def test_the_base_is_rebuilt_with_its_losses_shown_and_never_over_another_folder(tmp_path, monkeypatch):
    monkeypatch.setattr(building, "VISION_STEPS", 1)
    monkeypatch.setattr(building, "VISION_BATCH", 2)
    monkeypatch.setattr(building, "STEPS", 2)
    monkeypatch.setattr(building, "MIX", tuple((make, 2) for make, _ in building.MIX))
    monkeypatch.setattr(building.torch, "set_num_threads", lambda count: None)
    monkeypatch.setattr(building, "tokenizer_texts", lambda: ["user\nassistant\nA face and an object. Yes No"] * 9)
    built = run("tiny", "build", str(tmp_path / "base"))
    assert built.exit_code == 0, built.output
    assert (tmp_path / "base" / "model.safetensors").is_file()
    assert "3/3" in built.output
    assert re.search(r"consistency \d\.\d{3}", built.output)
    monkeypatch.setattr(building, "HARD_VISION_STEPS", 1)
    monkeypatch.setattr(building, "HARD_STEPS", 2)
    assert "3/3" in run("tiny", "build", str(tmp_path / "hard"), "--hard").output
    again = run("tiny", "build", str(tmp_path / "base"))
    assert "exists and is not empty" in str(again.exception)


def test_data_check_prints_its_report_and_tells_by_its_status_whether_training_would_break(scenes, tmp_path):
    assert run("data", "check", scenes).exit_code == 0
    for name in ("a", "b"):
        Image.new("RGB", (64, 64)).save(tmp_path / f"{name}.png")
    rows = [{"file_name": "a.png", "label": "joy"}, {"file_name": "c.png", "label": "fear"}]
    (tmp_path / "metadata.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    result = run("data", "check", str(tmp_path))
    assert result.exit_code == 1
    assert "bad rows" in result.output
    assert "breaks training" in result.output
