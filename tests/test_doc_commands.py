"""Every command in the docs' shell blocks is run, small, or marked as not run here; all of `emor3` fit its options."""

import doctest
import io
import json
import os
import re
import shlex
import shutil
import signal
import subprocess
import sys
import threading
from collections.abc import Callable, Mapping, Sequence
from contextlib import redirect_stdout
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import Any

import pytest
import typer
import yaml
from PIL import Image

import layouts
import shell_blocks
from clips import clip_folders
from emor3.cli.main import app
from emor3.data.folders import load_samples
from emor3.runs.recipe import load_recipe
from emor3.storage.shipped import RECIPES, shipped_recipes
from made_up import save_evaluation
from places import ROOT
from reviewing import pictured
from shell_blocks import Command, begins, commands_of

PAGES = {
    path.relative_to(ROOT).as_posix(): path.read_text(encoding="utf-8")
    for path in sorted([*ROOT.glob("*.md"), *ROOT.glob("docs/**/*.md")])
}
COMMANDS = [command for page, text in PAGES.items() for command in commands_of(page, text)]
TO_RUN = [command for command in COMMANDS if command.reason is None]
PAST = {"CHANGELOG.md", "docs/log.md"}  # which tell of what there was, by the names of its day

PAGE = """
<!-- not run here (git clone; emor3 demo): a network -->
```bash
git clone x && emor3 runs > a.txt   # two
X=1 accelerate launch -m \\
  emor3 train r.yaml
```
<!-- not run here: minutes -->
```console
$ make quickstart
installs into .venv
```
```python
emor3.load_policy("embedded")
```
"""


def test_commands_are_found_as_a_shell_reads_them() -> None:
    found = list(commands_of("p.md", PAGE))
    assert [str(command) for command in found] == [
        "p.md:4: git clone x",
        "p.md:4: emor3 runs",
        "p.md:5: accelerate launch -m emor3 train r.yaml",
        "p.md:10: make quickstart",
    ]
    assert [command.reason for command in found] == ["a network", None, None, "minutes"]
    assert [command.emor3 for command in found] == [None, ("runs",), ("train", "r.yaml"), None]
    assert found[1].into == "a.txt"
    assert doctest.testmod(shell_blocks).failed == 0


# --- all commands of emor3 fit what the command line takes


@cache
def command_line() -> Any:
    return typer.main.get_command(app)


def refusal(arguments: Sequence[str]) -> str | None:
    """What the command line has against these arguments; nothing is run."""
    command, left, name = command_line(), list(arguments), "emor3"
    while hasattr(command, "commands") and left and not left[0].startswith("-"):
        name, command = left[0], command.commands.get(left.pop(0))
        if command is None:
            return f"there is no {name!r}"
    if hasattr(command, "commands"):
        return next((f"there is no {word!r}" for word in left or ["--help"] if word not in options_of(command)), None)
    try:
        command.make_context(name, left)
    except typer.BadParameter.__base__ as error:  # its UsageError, typer's own or click's
        return str(error.format_message())
    except typer.Exit:  # as after --help
        pass
    return None


def options_of(command: Any) -> set[str]:
    return {
        "--help",
        "-h",
        *(spelling for option in command.params for spelling in (*option.opts, *option.secondary_opts)),
    }


@pytest.mark.parametrize("page", [page for page in PAGES if any(command.page == page for command in COMMANDS)])
def test_the_commands_of_a_page_fit_the_options_of_emor3(page: str, capsys: pytest.CaptureFixture[str]) -> None:
    found = [command for command in COMMANDS if command.page == page and command.emor3 is not None]
    wrong = {str(command): refusal(command.emor3 or ()) for command in found}
    assert {command: why for command, why in wrong.items() if why is not None} == {}


@pytest.mark.parametrize("page", [page for page in PAGES if page not in PAST])
def test_commands_named_in_the_text_exist_with_their_options(page: str) -> None:
    """As in `emor3 data sample`: without all of their arguments, so only names are looked up."""
    unknown = []
    for span in re.findall(r"`emor3 ([^`\n]+)`", PAGES[page]):
        command, words = command_line(), span.split()
        while hasattr(command, "commands") and words and words[0] in command.commands:
            command = command.commands[words.pop(0)]
        if (
            hasattr(command, "commands")
            and words
            and re.fullmatch(r"[a-z-]+", words[0])
            and not words[0].startswith("-")
        ):
            unknown.append(span)
        given = {word.split("=")[0] for word in words if re.match(r"--?[a-z]", word)}
        unknown += [span for option in given if option not in options_of(command)]
    assert unknown == []


@pytest.mark.parametrize("command", [c for c in COMMANDS if c.emor3 and "--set" in c.words], ids=str)
def test_settings_that_a_command_overrides_exist(command: Command) -> None:
    values = [word for before, word in zip(command.words, command.words[1:], strict=False) if before == "--set"]
    recipe = next((word for word in command.words if word in shipped_recipes()), "quickstart")
    assert load_recipe(recipe, values)


@pytest.mark.parametrize(
    ("arguments", "why"),
    [
        ("tran my.yaml", "there is no 'tran'"),
        ("train my.yaml --sett a=1", "No such option: --sett"),
        ("train my.yaml other.yaml", "unexpected extra argument"),
        ("train", "Missing argument"),
        ("data samples a b", "there is no 'samples'"),
        ("evaluate -m m -d d --engine transformer", "'transformer' is not"),
        ("--versions", "there is no '--versions'"),
    ],
)
def test_what_does_not_fit_is_told(arguments: str, why: str) -> None:
    assert why in str(refusal(arguments.split()))


# --- every command is run or marked

SHELL = {"mkdir", "tar"}
"""Run as they stand."""
SET_UP = {(".", ".venv/bin/activate"), ("make", "setup")}
"""What made the environment that the tests run in."""


def test_no_command_is_neither_run_nor_marked() -> None:
    neither = [
        str(command)
        for command in TO_RUN
        if command.emor3 is None and command.words[0] not in SHELL and command.words not in SET_UP
    ]
    assert neither == []


@dataclass(frozen=True)
class Small:
    """How the commands that begin with certain words are run here."""

    more: str = ""
    """Arguments that are added."""
    instead: Mapping[str, str] = field(default_factory=dict)
    """Arguments that others stand for."""
    status: int = 0
    serves: bool = False
    """Ended by Ctrl-C as soon as it says that this ends it."""


STEP = (
    "--set grpo.max_steps=1 --set grpo.num_generations=2 --set grpo.per_device_train_batch_size=4 "
    "--set grpo.max_completion_length=16 --set judge.calibration=0"
)
SMALL = {
    "emor3": Small(),
    "emor3 init": Small("--model embedded"),
    "emor3 init my_photos --model": Small(),
    "emor3 train": Small(STEP),
    "emor3 train oasis_photos": Small(f"{STEP} --set cold_start.steps=1 --set cold_start.batch_size=2"),
    "emor3 quickstart": Small(f"{STEP} --limit 4"),
    "emor3 evaluate": Small("--limit 8 --max-new-tokens 16"),
    "emor3 evaluate --from": Small(),
    "emor3 predict": Small("--max-new-tokens 16"),
    "emor3 predict photo.jpg": Small(status=2),  # which names a model that can be taken
    "emor3 bench step": Small("--images 1 --completions 2 --rounds 1 --max-tokens 8"),
    "emor3 data sample": Small(instead={"train=2100": "train=8", "test=2000": "test=8"}),
    "emor3 demo": Small("--port 0", serves=True),
    "emor3 demo --export-space": Small(),
    "emor3 review": Small("--port 0", serves=True),
}


def small(command: Command) -> Small:
    """The entry with the longest beginning."""
    return SMALL[max((begin for begin in SMALL if begins(command.words, begin.split())), key=len)]


# --- what the text says that people have


def class_folders(folder: Path) -> None:
    for place in range(24):
        picture(folder / ("calm", "tense")[place % 2] / f"{place}.jpg", place)


def picture(path: Path, seed: int = 0) -> None:
    """A picture like no other one."""
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.effect_noise((64, 64), 20 + seed).rotate(15 * seed).save(path)


def pictures(folder: Path) -> None:
    for place in range(2):
        picture(folder / f"{place}.jpg", place)


def oasis(folder: Path) -> None:
    folder.mkdir()
    layouts.oasis(folder)
    for place, path in enumerate(sorted(folder.glob("images/*.jpg"))):
        picture(path, place)


def evaluation(folder: Path) -> None:
    """On the samples of one beside it, if a command wrote that."""
    for other in folder.parent.glob("evaluation-*"):
        shutil.copytree(other, folder)
        return
    save_evaluation(folder, {"d": pictured(Path("pictures").resolve(), 3)}, model=folder.as_posix())


def recipe(path: Path) -> None:
    content = yaml.safe_load((RECIPES / "quickstart_easy.yaml").read_text(encoding="utf-8"))
    path.write_text(yaml.safe_dump(content | {"output_dir": f"runs/{path.stem}"}), encoding="utf-8")


def completions(path: Path) -> None:
    picture(path.parent / "scored.jpg")
    row = {"id": 1, "response": r"<step1>fog</step1>\boxed{fear}", "label": "fear", "images": ["scored.jpg"]}
    path.write_text(json.dumps(row) + "\n", encoding="utf-8")


def own_rewards(place: Path) -> None:
    """A function, and the recipe of the page with a part of the reward that names it."""
    (place.parent / "my_rewards.py").write_text("def brevity(rollouts):\n    return [0.5 for _ in rollouts]\n")
    path = place.parent / "my_recipe.yaml"
    content = yaml.safe_load(path.read_text(encoding="utf-8"))
    content["reward"] = {"own": {"brevity": {"function": "my_rewards:brevity", "weight": 0.1}}}
    path.write_text(yaml.safe_dump(content), encoding="utf-8")


def shipped_file(path: Path) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    shutil.copy(ROOT / path.relative_to(Path.cwd()), path)


def data_folder(folder: Path) -> None:
    rows = [{"file_name": f"{place}.jpg", "label": ("calm", "tense")[place % 2]} for place in range(8)]
    for place, row in enumerate(rows):
        picture(folder / str(row["file_name"]), place)
    (folder / "metadata.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")


def drawn_photos(folder: Path) -> None:
    """What the Python lines of docs/tutorial.md make, with fewer pictures."""
    for split, count in (("train", 24), ("test", 8)):
        for sample in load_samples("embedded:hard8", split=split)[:count]:
            picked = folder / split / sample.label
            picked.mkdir(parents=True, exist_ok=True)
            shutil.copy(sample.images[0], picked)


GIVEN: Mapping[str, Callable[[Path], None]] = {
    r"my_photos": drawn_photos,
    r"my_images": class_folders,
    r"my_clips": clip_folders,
    r"data/(my_images|emoset|fi|webemo)": data_folder,
    r"photos": pictures,
    r"photo\.jpg": picture,
    r"shiny-server": oasis,
    r"downloads/EmoSet-118K": layouts.emoset,
    r"my_recipe\.yaml": recipe,
    r"my_rewards:brevity": own_rewards,
    r"completions\.jsonl": completions,
    r"runs/(evaluation-\d|base|trained)|[ab]/seed\d": evaluation,
    r"docs/results/.+|recipes/.+": shipped_file,
}
"""Names of what is there before a page's commands are run, and what makes it."""


def give(command: Command) -> None:
    """Make what a command names and earlier ones did not write; not what it writes itself."""
    writes = {
        after for before, after in zip(command.words, command.words[1:], strict=False) if before in ("-o", "--output")
    }
    for name in (part for word in command.words if word not in writes for part in word.split(",")):
        for pattern, make in GIVEN.items():
            if re.fullmatch(pattern, name) and not Path(name).exists():
                make(Path(name).resolve())


# --- running them


class Ending(io.StringIO):
    """Standard output that sends Ctrl-C, once, when it is told that this ends the command."""

    def __init__(self, ends: bool) -> None:
        super().__init__()
        self._ends = ends

    def write(self, text: str) -> int:
        if self._ends and "Ctrl-C ends it" in text:
            self._ends = False
            threading.Timer(0.3, os.kill, (os.getpid(), signal.SIGINT)).start()
        return super().write(text)


@pytest.fixture
def run(main_with: Callable[..., int]) -> Callable[[Command], tuple[int, str]]:
    """Run a command in the working folder; returns its status and what it printed."""

    def run_command(command: Command) -> tuple[int, str]:
        if command.emor3 is None:
            done = subprocess.run(command.words, check=False, capture_output=True, text=True)
            return done.returncode, done.stdout + done.stderr
        how = small(command)
        words = [how.instead.get(word, word) for word in (*command.emor3, *shlex.split(how.more))]
        printed = Ending(how.serves)
        with redirect_stdout(printed):
            status = main_with(*words)
        if command.into is not None:
            Path(command.into).write_text(printed.getvalue(), encoding="utf-8")
        return status - (130 if how.serves and status == 130 else how.status), printed.getvalue()

    return run_command


@pytest.mark.slow
@pytest.mark.enable_socket
@pytest.mark.allow_hosts(["127.0.0.1"])
@pytest.mark.parametrize("page", dict.fromkeys(command.page for command in TO_RUN))
def test_the_commands_of_a_page_run_one_after_the_other(
    page: str,
    run: Callable[[Command], tuple[int, str]],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    few_draws: None,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", [*sys.path])
    for command in (command for command in TO_RUN if command.page == page and command.words not in SET_UP):
        give(command)
        status, printed = run(command)
        assert status == 0, f"{command}\n{printed}\n{capsys.readouterr().err}"
