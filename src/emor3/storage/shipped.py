"""The recipes that come with the package: known by their names from anywhere, and copied to be edited."""

import shlex
from collections.abc import Mapping
from importlib.resources import files
from pathlib import Path
from typing import Any, Literal, TypeAlias

from emor3.errors import UserError, did_you_mean
from emor3.storage.outputs import check_absent, write_whole

RECIPES = Path(str(files("emor3") / "recipes"))
SUFFIX = ".yaml"
Kind: TypeAlias = Literal["recipe", "plan", "launch"]
"""A recipe of one run, a plan of several, or a configuration of `accelerate launch`."""
MARKS: Mapping[Kind, str] = {"plan": "methods", "launch": "distributed_type", "recipe": "model"}
"""A setting that only this kind has."""


def shipped_recipes() -> dict[str, Path]:
    """Shipped recipes, plans and (below `accelerate/`) configurations of a launch, by name."""
    return {path.relative_to(RECIPES).with_suffix("").as_posix(): path for path in sorted(RECIPES.rglob(f"*{SUFFIX}"))}


def purpose(path: Path) -> str:
    """What a shipped recipe is for: the first line of the comment at its head."""
    return path.read_text(encoding="utf-8").partition("\n")[0].lstrip("# ")


def kind_of(content: Mapping[str, Any]) -> Kind | None:
    """What a YAML file is, by its settings; None if that cannot be told."""
    return next((kind for kind, mark in MARKS.items() if mark in content), None)


def check_kind(content: Mapping[str, Any], wanted: Kind, given: str | Path) -> None:
    """Raise UserError, with the command to call, for a file that another command takes."""
    kind, name = kind_of(content), shlex.quote(str(given))
    if kind == "plan" != wanted:
        raise UserError(f"{given} is a plan of several runs: `emor3 reproduce {name}` runs it, --quick a part of it")
    if kind == "recipe" != wanted:
        raise UserError(f"{given} is a recipe of one run: `emor3 train {name}` runs it")
    if kind == "launch":
        file = name if Path(given).exists() else "FILE"
        raise UserError(
            f"{given} configures a launch on several GPUs, and trains nothing by itself: `emor3 recipes` copies it, "
            f"`accelerate launch --config_file {file} -m emor3 train RECIPE` takes it"
        )


def find_recipe(given: str | Path) -> Path:
    """The file of a recipe or plan that a person gave as a path or by the name of a shipped one; a path wins.

    A path to nowhere is returned as it is. Raises UserError, with the names there are, for a bare name that is neither.
    """
    path = Path(given)
    shipped = None if path.exists() else shipped_recipes().get(str(given))
    if shipped is None and not path.exists() and path.name == str(given) and not path.suffix:
        raise _unknown(str(given))
    return shipped or path


def copy_recipe(name: str, output: Path | None) -> Path:
    """Copy a shipped recipe into a folder (None: the working one) or to a new file; returns the file.

    Raises UserError if there is no recipe of that name, or the file exists.
    """
    source = shipped_recipes().get(name)
    if source is None:
        raise _unknown(name)
    target = Path(output or "")
    if target.is_dir():
        target /= source.name
    check_absent(target)
    write_whole(target, source.read_text(encoding="utf-8"))
    return target


def _unknown(name: str) -> UserError:
    known = shipped_recipes()
    names = ", ".join(recipe for recipe in known if "/" not in recipe)
    hints = (did_you_mean(name, known), f"give a YAML file, or one of {names}")
    return UserError(f"there is no recipe {name!r}: {' '.join(filter(None, hints))}")
