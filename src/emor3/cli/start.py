"""`emor3 init`: from a person's own images to a recipe. Heavy imports stand inside the command."""

import sys
from pathlib import Path
from typing import Annotated

import typer

from emor3.cli.next_steps import say_next
from emor3.cli.options import usable
from emor3.errors import UserError
from emor3.printing import say, say_start


def init(
    data: Annotated[
        str | None,
        typer.Argument(
            metavar="DATA",
            help="Your labelled images: class folders, a table, a public set as it is distributed, or a folder with "
            "metadata.jsonl. Asked for on a terminal.",
        ),
    ] = None,
    output: Annotated[
        Path | None,
        typer.Option("--output", "-o", help="Recipe to write, a new file. [default: NAME.yaml of the data]"),
    ] = None,
    model: Annotated[
        str | None, typer.Option("--model", "-m", help="Start model. [default: the largest that fits this machine]")
    ] = None,
    gpu_memory: Annotated[
        float | None,
        typer.Option(
            callback=usable, min=0, help="Memory of the GPU to train on in GB, 0 for none. [default: this machine's]"
        ),
    ] = None,
    labels: Annotated[
        str | None,
        typer.Option(help="Label set: a built-in name or a YAML file. [default: the labels in the data]"),
    ] = None,
    import_to: Annotated[
        Path | None,
        typer.Option(metavar="DIR", help="New folder for the rows of images that have none. [default: data/NAME]"),
    ] = None,
    copy: Annotated[bool, typer.Option("--copy", help="Copy the images into it instead of linking to them.")] = False,
) -> None:
    """Write a first recipe for your own images.

    Looks at the data (class folders and tables become a data folder) and at the machine, takes the settings of the
    shipped recipe that fits, and names the commands that follow. Asks for DATA on a terminal, and only there.
    """
    asked = data is None
    data = data or _ask("Folder or table of your labelled images")
    say_start("emor3 init")
    from emor3.models.architectures import download_text
    from emor3.storage.outputs import check_absent
    from emor3.tools import first_recipe

    output = output or first_recipe.default_output(data)
    if asked:
        output = Path(typer.prompt("Recipe to write", default=str(output), err=True))
    check_absent(output)
    folder = first_recipe.data_folder(data, import_to, copy)
    report = first_recipe.checked(folder, labels)
    say(f"data: {folder}: {first_recipe.data_text(report)}")
    machine = first_recipe.this_machine(gpu_memory)
    say(f"machine: {machine}")
    name, path = first_recipe.settings_for(machine, folder, model)
    size = download_text(path)
    say(f"model: {path}{size and f' ({size})'}, with the settings of the shipped recipe {name}")
    first_recipe.write_recipe(output, name, path, folder, labels, report)
    say(f"written to: {output}")
    say_next("init", folder=folder, recipe=output, memory=f"{machine.usable / 1e9:.0f}")


def _ask(question: str) -> str:
    """What a person types. Raises UserError where nobody can: no command waits for one in a script or a job."""
    if not (sys.stdin and sys.stdin.isatty() and sys.stderr and sys.stderr.isatty()):
        raise UserError("name your images: emor3 init DATA, a folder of class folders, or a table")
    return str(typer.prompt(question, err=True))
