"""`emor3 reproduce PLAN`: train and evaluate every cell of a plan, going on with what is missing, and print the table.

Each cell runs in a process of its own (`jobs` at a time) and leaves its evaluation only when it is whole, so a killed
reproduction repeats nothing finished; a cell's training resumes from its last checkpoint.
"""

import os
import shutil
import subprocess
import sys
import threading
import time
from collections.abc import Sequence
from pathlib import Path

from rich import box
from rich.progress import BarColumn, MofNCompleteColumn, TextColumn, TimeElapsedColumn, TimeRemainingColumn
from rich.table import Table

from emor3.errors import UserError, printable
from emor3.experiments.plan import Cell, Plan, cells_of
from emor3.models.checkpoints import resolve_checkpoint
from emor3.models.engines.vllm import check_installed
from emor3.printing import say
from emor3.progress import Bar
from emor3.runs.changes import MAX_STEPS, changes
from emor3.runs.directory import CHECKPOINTS, CONFIG, FINAL, METRICS
from emor3.runs.predictions import RESULTS
from emor3.runs.records import read_json
from emor3.storage.locks import held

POLL_SECONDS = 0.5
ORPHAN_SECONDS = 60.0
"""Time that the cell of a killed reproduction may take until it is gone."""
LOG = "log.txt"


def plan_table(plan: Plan, cells: Sequence[Cell]) -> Table:
    """What is to run and what is done, and the disk it takes (unknown before a hub model is downloaded)."""
    missing = [cell for cell in cells if not is_finished(cell)]
    trained = sum(cell.trains for cell in missing)
    start = Path(resolve_checkpoint(cells[0].recipe.model.path))
    weights = sum(path.stat().st_size for path in start.glob("*.safetensors"))
    disk = (trained + 4 * plan.jobs) * weights / 1e6  # final weights stay; a running cell has optimizer states too
    title = f"{len(cells)} cells, {len(missing)} to run, {plan.jobs} at a time"
    table = Table("method", *plan.domains, box=box.SIMPLE, title=title)
    for name in plan.methods:
        table.add_row(name, *(_states([c for c in cells if c.method == name], domain) for domain in plan.domains))
    steps = sum(cell.steps for cell in missing)
    needs = f"about {disk:.0f} MB of disk" if weights else "disk unknown until the model is downloaded"
    table.caption = f"{steps} training steps, {needs}; the time is measured on the first steps"
    return table


def _states(cells: Sequence[Cell], domain: str) -> str:
    return " ".join(
        f"seed {cell.seed}{' ✓' if is_finished(cell) else ''}" if cell.trains else f"as it is{' ✓' * is_finished(cell)}"
        for cell in cells
        if cell.domain in (None, domain)
    )


def is_finished(cell: Cell) -> bool:
    """Whether a cell's evaluation is there."""
    return (cell.evaluation / RESULTS).is_file()


def run_plan(plan: Plan, path: Path, quick: bool) -> list[Cell]:
    """Run every missing cell; returns those that failed. Progress with ETA over all cells on standard error.

    Raises UserError if the plan's judge or its engine is missing.
    """
    cells = cells_of(plan)
    waiting = [cell for cell in cells if not is_finished(cell)]
    if plan.judge is not None:
        resolve_checkpoint(plan.judge)  # missing, it would fail every cell after its training
    if plan.evaluation.engine == "vllm":
        check_installed()
    running: dict[subprocess.Popen[bytes], Cell] = {}
    failed: list[Cell] = []
    columns = (MofNCompleteColumn(), TextColumn("steps"), TimeElapsedColumn(), TextColumn("ETA"), TimeRemainingColumn())
    with Bar("steps", BarColumn(), *columns, error=True) as progress:
        task = progress.add_task("", total=sum(cell.steps for cell in waiting) or None)
        finished_steps = 0
        try:
            while waiting or running:
                while waiting and len(running) < plan.jobs:
                    cell = waiting.pop(0)
                    running[_start(cell, plan, path, quick)] = cell
                time.sleep(POLL_SECONDS)
                for process in [process for process in running if process.poll() is not None]:
                    cell = running.pop(process)
                    finished_steps += cell.steps
                    if process.returncode != 0:
                        failed.append(cell)
                        line = f"failed: {cell.folder}: {_last_line(cell.folder / LOG)}"
                        progress.console.print(line, soft_wrap=True)
                names = ", ".join(f"{cell.method} {cell.domain or ''} {cell.seed}" for cell in running.values())
                done = finished_steps + sum(_steps_done(cell) for cell in running.values())
                progress.update(task, completed=done, description=printable(names))
        finally:
            for process in running:
                process.terminate()
    return failed


def _start(cell: Cell, plan: Plan, path: Path, quick: bool) -> "subprocess.Popen[bytes]":
    cell.folder.mkdir(parents=True, exist_ok=True)
    threads = max(1, (os.cpu_count() or 1) // plan.jobs)
    command = [sys.executable, "-m", "emor3", "reproduce", str(path), "--output", plan.output_dir]
    command += ["--engine", plan.evaluation.engine, "--cell", str(cell.folder), *(["--quick"] if quick else [])]
    with (cell.folder / LOG).open("ab") as log:
        return subprocess.Popen(
            command,
            stdin=subprocess.PIPE,  # closes when this process ends, however it ends: the child then ends too
            stdout=log,
            stderr=log,
            env=os.environ | {"OMP_NUM_THREADS": str(threads), "OMP_WAIT_POLICY": "PASSIVE"},
        )


def _steps_done(cell: Cell) -> int:
    metrics = cell.training / METRICS
    return metrics.read_bytes().count(b"\n") if metrics.is_file() else 0


def _last_line(log: Path) -> str:
    lines = log.read_text(encoding="utf-8", errors="replace").split("\n")
    return next((line.strip() for line in reversed(lines) if line.strip()), "no message")


def end_with_parent() -> None:
    """End this process when its standard input closes, as it does when the process that started it is killed."""

    def wait() -> None:
        os.read(0, 1)  # unbuffered: a reader blocked in sys.stdin would abort the interpreter at exit
        os._exit(1)

    threading.Thread(target=wait, daemon=True).start()


def run_cell(plan: Plan, folder: Path) -> None:
    """Train and evaluate the cell of a folder. Raises UserError if the plan has no such cell."""
    cell = next((cell for cell in cells_of(plan) if cell.folder == folder), None)
    if cell is None:
        raise UserError(f"{folder} is no cell of this plan")
    with held(cell.folder, ORPHAN_SECONDS):
        _run_cell(plan, cell)


def _run_cell(plan: Plan, cell: Cell) -> None:
    from emor3.evaluation.evaluate import evaluate, load_candidate
    from emor3.evaluation.journal import OtherEvaluationError
    from emor3.training.run import train

    if cell.trains:
        if not _is_trained(cell):
            train(cell.recipe, resume=cell.training.exists())
        shutil.rmtree(cell.training / CHECKPOINTS, ignore_errors=True)
    start = cell.recipe.model.path
    policy = str(cell.training) if cell.trains else start
    candidate = load_candidate(policy, plan.judge or start, plan.evaluation.engine)
    prompt = {"thinking": cell.recipe.thinking, "template": cell.recipe.prompt_template}
    settings = plan.evaluation.model_copy(update={"seed": cell.seed, **prompt})
    draft = cell.folder / "evaluation.tmp"
    try:
        evaluate(candidate, plan.tests, settings, draft, resume=True)
    except OtherEvaluationError as other:  # the plan was changed meanwhile
        say(f"{other}: begun anew")
        shutil.rmtree(draft)
        evaluate(candidate, plan.tests, settings, draft)
    draft.rename(cell.evaluation)


def _is_trained(cell: Cell) -> bool:
    """Whether a cell's training ended, under this recipe; its checkpoints may be gone, so it could not be resumed."""
    if not (cell.training / FINAL).is_dir():
        return False
    found = changes(read_json(cell.training / CONFIG), cell.recipe.model_dump())
    return all(change.harmless and change.setting != MAX_STEPS for change in found)
