"""`emor3 bench …`, `emor3 tiny …`, `emor3 recipes`, `plan` (a recipe's memory) and `doctor` (this machine)."""

from pathlib import Path
from typing import Annotated, Literal

import typer

from emor3.cli.next_steps import say_next
from emor3.cli.options import Overrides, Seed, usable
from emor3.printing import say, say_start, show

bench_app = typer.Typer(help="Measure what the method costs on this machine.", no_args_is_help=True)
tiny_app = typer.Typer(help="The tiny model that comes with the package.", no_args_is_help=True)


@bench_app.command("step")
def bench_step(
    model: Annotated[str, typer.Option("--model", "-m", help="Checkpoint to train.")] = "embedded",
    data: Annotated[str, typer.Option("--data", "-d", help="Data folder or embedded:NAME.")] = "embedded:scenes8",
    images: Annotated[int, typer.Option(callback=usable, min=1, help="Images a step.")] = 8,
    completions: Annotated[int, typer.Option(callback=usable, min=2, help="Completions of each image.")] = 8,
    max_tokens: Annotated[int, typer.Option(callback=usable, min=1, help="Most tokens of a completion.")] = 96,
    pixels: Annotated[
        int | None, typer.Option(callback=usable, min=256, help="Scale every image to about this many pixels.")
    ] = None,
    labels: Annotated[
        int | None, typer.Option(callback=usable, min=8, max=32, help="Ask for this many labels.")
    ] = None,
    checkpointing: Annotated[bool, typer.Option("--checkpointing", help="Train under gradient checkpointing.")] = False,
    processes: Annotated[
        int, typer.Option(callback=usable, min=1, help="Processes that share the work, sharded by FSDP2.")
    ] = 1,
    rounds: Annotated[
        int, typer.Option(callback=usable, min=1, help="Rounds to measure, after one warm-up round.")
    ] = 7,
    seed: Seed = 0,
    output: Annotated[Path | None, typer.Option("--output", "-o", help="Also write all costs as JSON.")] = None,
) -> None:
    """Measure a training step against TRL's, with and without naive reflection, interleaved on the same batches."""
    say_start("emor3 bench step")
    from emor3.storage.outputs import write_json
    from emor3.tools.bench.rounds import bench_step as measure
    from emor3.tools.bench.tables import report, tables
    from emor3.tools.bench.ways import BenchSettings

    settings = BenchSettings(
        model, data, images, completions, max_tokens, pixels, labels, checkpointing, rounds, seed, processes
    )
    costs = measure(settings, lambda done: say(f"round {done} of {rounds}", error=True))
    for table in tables(costs):
        show(table)
    if output is not None:
        write_json(output, report(settings, costs))
    say_next("bench step")


@bench_app.command("growth")
def bench_growth(
    output: Annotated[Path, typer.Argument(metavar="DIR", help="Folder for growth.md, growth.json and growth.png.")],
) -> None:
    """Show how the costs of a step grow with completions, image size, labels and images (the embedded model).

    Needs a checkout of emor3.
    """
    say_start("emor3 bench growth")
    from emor3.tools.checkout import script

    script("emor3 bench growth", "benchmarks", "growth").write(output)
    say_next("bench growth", page=output / "growth.md")


@tiny_app.command("build")
def build_tiny(
    output: Annotated[Path, typer.Argument(metavar="DIR", help="Folder for the checkpoint.")],
    seed: Seed = 0,
    hard: Annotated[bool, typer.Option("--hard", help="The base of the hard domains instead.")] = False,
) -> None:
    """Train the embedded base checkpoint, easy or hard.

    The easy one from scratch, the hard one from the easy one. Needs a checkout of emor3 and under 20 minutes on two
    cores. The same seed gives the same weights on the same kind of machine.
    """
    say_start("emor3 tiny build")
    from emor3.tools.checkout import script

    tiny = script("emor3 tiny build", "scripts", "build_tiny")
    tiny.write(output, seed, tiny.HARD if hard else tiny.EASY)
    say_next("tiny build", folder=output)


def plan(
    recipe: Annotated[Path, typer.Argument(help="YAML file, or the name of a shipped recipe (`emor3 recipes`).")],
    overrides: Overrides = None,
    gpus: Annotated[int, typer.Option(callback=usable, min=1, help="GPUs, over all machines.")] = 1,
    memory: Annotated[float, typer.Option(callback=usable, min=0.1, help="Memory of each GPU in GB.")] = 80,
    sharding: Annotated[Literal["none", "fsdp2", "zero3"], typer.Option(help="As in recipes/accelerate/.")] = "none",
    config: Annotated[Path | None, typer.Option(help="The model's config.json, if the hub cannot be reached.")] = None,
    probe: Annotated[bool, typer.Option("--probe", help="Train two steps here to measure the time of one.")] = False,
    gpu: Annotated[
        str | None, typer.Option(help="Also estimate the time, on this kind of GPU: h100 or l20, which were measured.")
    ] = None,
    price: Annotated[
        float | None,
        typer.Option("--price-per-hour", callback=usable, min=0, help="Price of a GPU for an hour: also say the cost."),
    ] = None,
) -> None:
    """Estimate what a recipe needs: memory, disk, hours, money.

    Loads no weights. If it does not fit, names settings that make it smaller and ends with status 1.
    """
    from emor3.errors import UserError
    from emor3.runs.recipe import load_recipe
    from emor3.stats.format import byte_size

    if price is not None and gpu is None and not probe:
        raise UserError("--price-per-hour needs a time: add --gpu NAME or --probe")
    settings = load_recipe(recipe, overrides or [])
    say_start("emor3 plan")
    from emor3.tools import capacity as planning
    from emor3.tools import duration

    kind = None if gpu is None else duration.named_gpu(gpu)
    machine = planning.Machine(gpus, memory * 1e9, sharding)
    model = planning.model_config(settings.model.path, config)
    needs = planning.estimate_memory(settings, model, machine)
    time = None if kind is None else duration.estimate_time(settings, needs, kind)
    show(planning.memory_table(settings, needs, machine))
    if time is not None:
        for line in duration.time_lines(time, gpus, price):
            say(line)
    if probe:
        say(duration.probed_line(planning.probe(settings), needs.steps, gpus, price))
    if needs.fits(machine):
        say_next("plan", recipe=recipe)
        return
    say("It does not fit. What makes it smaller, one on top of the other:")
    fits = False
    for change, then, other in planning.ways_to_fit(settings, model, machine):
        fits = then.fits(other)
        say(f"  {change}: {byte_size(then.peak)}{', fits' if fits else ''}")
    if not fits:
        say("None of it is enough: take more or larger GPUs, or a smaller model.")
    say_next("plan (too large)", recipe=recipe)
    raise typer.Exit(1)


def recipes(
    name: Annotated[str | None, typer.Argument(metavar="NAME", help="Recipe to copy.")] = None,
    output: Annotated[
        Path | None, typer.Argument(metavar="OUT", help="New file, or folder for it. [default: the working folder]")
    ] = None,
) -> None:
    """List the shipped recipes, or copy one to edit it.

    train, plan, reproduce and data check --recipe take these names as they are.
    """
    from emor3.storage import shipped
    from emor3.storage.yaml_text import read_yaml

    if name is not None:
        copied = shipped.copy_recipe(name, output)
        say(f"written to: {copied}")
        match shipped.kind_of(read_yaml(copied, "recipe")):
            case "plan":
                say_next("recipes plan", recipe=copied)
            case "launch":
                say_next("recipes launch", recipe=copied)
            case _:
                say_next("recipes recipe", recipe=copied)
        return
    known = shipped.shipped_recipes()
    wide = max(map(len, known))
    for recipe, path in known.items():
        say(f"{recipe:<{wide}}  {shipped.purpose(path)}")
    say_next("recipes")


def doctor(
    model: Annotated[str | None, typer.Option("--model", "-m", help="Also check this checkpoint.")] = None,
    hub: Annotated[bool, typer.Option("--hub", help="Also check that the model hub answers.")] = False,
) -> None:
    """Check that this machine can run emor3.

    Checks versions, GPU, vLLM, disk, a checkpoint and the embedded model; status 1 if anything fails.
    """
    say_start("emor3 doctor")
    from emor3.tools.doctor import checks_table, examine

    checks = list(examine(model, hub))
    show(checks_table(checks))
    failed = any(check.status == "fail" for check in checks)
    if not failed:
        say_next("doctor")
    raise typer.Exit(int(failed))
