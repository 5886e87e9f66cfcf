"""The mark of a complete checkpoint: size and SHA-256 of every file that resume reads, to detect damage.

Without it, resume would go on silently from a flipped byte or a missing file, and end in other weights.
"""

import json
import zipfile
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from pydantic import BaseModel, ValidationError
from safetensors import SafetensorError, safe_open

from emor3.errors import UserError
from emor3.printing import say
from emor3.runs.directory import COMPLETE, checkpoint_step, complete_checkpoints
from emor3.storage.files import file_digest
from emor3.storage.outputs import DRAFT, write_json

UNREAD = {COMPLETE, "README.md", "training_args.bin"}
"""Files of a checkpoint that resume does not read."""
STATE, SCHEDULE, RANDOM_STATES = "trainer_state.json", "scheduler.pt", "rng_state*.pth"


class FileSum(BaseModel):
    """Size and checksum of a file when it was written."""

    size: int
    sha256: str


class Mark(BaseModel):
    """Content of the file that marks a folder as complete."""

    files: dict[str, FileSum]


def mark_complete(folder: Path) -> None:
    """Mark a folder as complete; this is the last file that is written to it."""
    written = (path for path in folder.rglob("*") if path.is_file() and path.suffix != DRAFT)
    files = sorted(path for path in written if str(path.relative_to(folder)) not in UNREAD)
    with ThreadPoolExecutor() as threads:
        sums = list(threads.map(_sum, files))
    content = {path.relative_to(folder).as_posix(): found.model_dump() for path, found in zip(files, sums, strict=True)}
    write_json(folder / COMPLETE, {"files": content})


def _sum(path: Path) -> FileSum:
    return FileSum(size=path.stat().st_size, sha256=file_digest(path).hex())


def has_sums(folder: Path) -> bool:
    """Whether a complete folder's mark holds sums; that of older versions is empty."""
    return (folder / COMPLETE).stat().st_size > 0


def faults(folder: Path) -> list[str]:
    """Files of a complete folder that are missing or damaged, a few words for each."""
    if not has_sums(folder):
        return list(_faults_without_sums(folder))
    try:
        mark = Mark.model_validate_json((folder / COMPLETE).read_bytes())
    except (OSError, ValidationError):
        return [f"{COMPLETE} is broken"]
    with ThreadPoolExecutor() as threads:
        found = threads.map(lambda name: _fault(folder / name, name, mark.files[name]), mark.files)
    return [fault for fault in found if fault]


def _fault(path: Path, name: str, written: FileSum) -> str:
    if not path.is_file():
        return f"{name} is missing"
    try:
        size = path.stat().st_size
        if size != written.size:
            return f"{name} has {size:,} bytes instead of {written.size:,}"
        return "" if _sum(path) == written else f"{name} has other bytes"
    except OSError as error:
        return f"{name} cannot be read ({error.strerror})"


def _faults_without_sums(folder: Path) -> Iterator[str]:
    """Without sums, what is missing or cut short can still be seen."""
    if (folder / STATE).is_file() or folder.name.startswith("checkpoint-"):
        needed = (STATE,) if any(folder.glob("global_step*")) else (STATE, SCHEDULE)  # DeepSpeed may keep its schedule
        yield from (f"{name} is missing" for name in needed if not (folder / name).is_file())
        if not any(folder.glob(RANDOM_STATES)):
            yield f"{RANDOM_STATES} is missing"
    for path in sorted(folder.rglob("*")):
        if path.is_file() and path.name not in UNREAD and not _is_whole(path):
            yield f"{path.relative_to(folder)} is cut short or broken"


def _is_whole(path: Path) -> bool:
    try:
        if path.suffix == ".safetensors":
            with safe_open(path, "pt"):
                return True
        if path.suffix == ".json":
            json.loads(path.read_bytes())
    except (OSError, ValueError, SafetensorError):
        return False
    return path.suffix not in (".pt", ".pth") or zipfile.is_zipfile(path)


def checkpoint_to_resume(run: Path, step: int | None = None) -> Path | None:
    """The newest complete checkpoint, or that of a step; None if no step was saved yet.

    Raises UserError if the step has none.
    """
    found = {checkpoint_step(folder): folder for folder in complete_checkpoints(run)}
    if step is None:
        return found[max(found)] if found else None
    if step not in found:
        saved = ", ".join(map(str, found)) or "none"
        raise UserError(f"{run} has no complete checkpoint of step {step}; saved steps: {saved}")
    return found[step]


def check_checkpoint(run: Path, chosen: Path) -> None:
    """Raise UserError if a checkpoint is not as it was written, naming the newest before it that is."""
    if wrong := faults(chosen):
        older = [f for f in complete_checkpoints(run) if checkpoint_step(f) < checkpoint_step(chosen)]
        whole = next((folder for folder in reversed(older) if not faults(folder)), None)
        way = (
            "no checkpoint before it is whole: begin anew with --overwrite"
            if whole is None
            else f"--from-checkpoint {checkpoint_step(whole)} goes on from the one before"
        )
        raise UserError(f"{chosen} is not as it was written: {', '.join(wrong)}; {way}")
    if not has_sums(chosen):
        say(f"{chosen} was written by an older emor3, without checksums: only missing and short files would show")


def check_cold_start(folder: Path) -> None:
    """Raise UserError if a cold-started policy, from which a resumed run starts, is not as it was written."""
    wrong = faults(folder) if (folder / COMPLETE).is_file() else []
    if wrong:
        raise UserError(
            f"{folder} is not as it was written: {', '.join(wrong)}; remove that folder, and --resume makes it again"
        )
