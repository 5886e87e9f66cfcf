"""`emor3 data import`: read a set in its distributed layout, split it if it has no split, and write a data folder."""

import csv
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import asdict
from pathlib import Path
from typing import Any

import yaml
from rich.progress import Progress

from emor3.data.folders import LABELS
from emor3.data.importers.catalogue import LAYOUTS, SETS, YOURS, DataSet, known_set
from emor3.data.importers.clips.drawing import Drawing, drawing
from emor3.data.importers.items import Dropped, Item, Options, WrongLayoutError
from emor3.data.importers.sources import files_below, listing
from emor3.data.importers.tables import hub, table
from emor3.data.importers.writer import Imported, Writer
from emor3.data.manifest import write_rows
from emor3.data.subsets import hold_out
from emor3.errors import UserError, one_line, printable
from emor3.method.labels import BUILT_IN, LabelSet, normalise
from emor3.printing import say
from emor3.progress import Bar, told
from emor3.storage.clips import CLIP_SUFFIXES, FRAMES, check_frames
from emor3.storage.outputs import new_output, write_json

RECORD = "import.json"
TEST_SHARE = 0.3
"""Share of each label held out as test if the set has no split."""


def import_data(
    name: str,
    source: str,
    out: Path,
    *,
    policy: str | None = None,
    columns: Mapping[str, str] | None = None,
    label_names: Mapping[int, str] | None = None,
    copy: bool = False,
    test_share: float | None = None,
    seed: int = 0,
    frames: int | None = None,
) -> Imported:
    """Write a folder with the manifest of a set in its distributed layout; images are linked, or copied if asked.

    Of each clip of a set of clips so many `frames` (4) are drawn, as files in the folder.
    A set without a split of its own gets `test_share` (0.3) of each label as its test split, drawn with the seed.
    Raises UserError for an unknown set or policy, and for a source that is not in the layout: what was expected, what
    was found, and where the set is obtained.
    """
    data_set = known_set(name)
    count = FRAMES if frames is None else frames
    check_frames(count)
    options = Options(_policy(data_set, name, policy), columns or {}, label_names or {})
    path = Path(source).expanduser()
    if data_set.read is not hub and not path.exists():
        raise UserError(
            f"{source} does not exist: {data_set.title} is expected as {data_set.expected}; "
            f"it is obtained from {data_set.obtain}"
        )
    labels = data_set.policies[options.policy]
    imported = Imported(
        name, source, options.policy, labels.name if labels else "from the data", "the set's own", terms=data_set.terms
    )
    root = path.parent if path.is_file() else path
    imported.frames = count if data_set.clips else None
    with ExitStack() as opened:
        folder = opened.enter_context(new_output(out, path))  # a table may have it beside it, if nothing is linked
        drawn = opened.enter_context(drawing(folder, out.expanduser().resolve(), count)) if data_set.clips else None
        writer = Writer(root, folder, out, copy, imported, drawn)
        _read(writer, data_set, source, path, options)
        if labels is None:
            _refuse_free_text(source, writer.rows)
        imported.vanished = writer.vanished()
        if all(row["split"] is None for row in writer.rows):
            share = TEST_SHARE if test_share is None else test_share
            _split(writer.rows, share, seed)
            imported.split = f"{share:g} of each label held out as test, seed {seed}"
        elif test_share is not None:
            raise UserError("--test-share does nothing here: the set has splits of its own: leave it out")
        imported.rows = _counted(writer.rows)
        imported.manifest_sha256 = write_rows(folder, writer.rows)
        if labels is not None:
            (folder / LABELS).write_text(_label_file(labels), encoding="utf-8")
        write_json(folder / RECORD, asdict(imported))
    return imported


def _read(writer: Writer, data_set: DataSet, source: str, path: Path, options: Options) -> None:
    """Take all rows of a source. Raises UserError if it is not in the layout of its set, or nothing of it is usable."""
    try:
        if writer.drawing is None:
            for found in told(data_set.read(path, options), source, "entries read"):
                writer.take(found)
        else:
            _take_clips(writer, writer.drawing, list(data_set.read(path, options)), source)
        if data_set.read in (table, hub):
            writer.merge_votes()
        writer.drop_unreadable(data_set.policies[options.policy])
        if not writer.rows:
            first = writer.imported.dropped[0] if writer.imported.dropped else {}
            detail = f"{first['what']}: {first['reason']}" if first else listing(writer.root)
            if not data_set.clips and files_below(writer.root, CLIP_SUFFIXES):
                detail += " and video clips, which `emor3 data import clips` reads"
            raise WrongLayoutError(f"no usable {'clip' if data_set.clips else 'image'}; {detail}")
    except (WrongLayoutError, csv.Error, UnicodeDecodeError) as error:
        read = f"expected {data_set.expected}; found {error}"
        if data_set.obtain == YOURS:
            raise UserError(f"{source} cannot be read as {data_set.title}: {read}; {LAYOUTS}") from None
        raise UserError(
            f"{source} is not {data_set.title} as it is distributed: {read}. It is obtained from {data_set.obtain}"
        ) from None


def _take_clips(writer: Writer, drawn: Drawing, entries: Sequence[Item | Dropped], source: str) -> None:
    """Take entries of which each may be a clip to decode, and tell the time that is left."""
    with Bar("clips", *Progress.get_default_columns()[1:], error=True, transient=True) as progress:
        task = progress.add_task(printable(source), total=len(entries))
        for found in entries:
            writer.take(found)
            progress.advance(task)
    drawn.settle(writer.folder)
    if drawn.taken_up:
        say(f"{drawn.taken_up} clips: their frames were drawn by an import that ended early", error=True)


def _counted(rows: Iterable[dict[str, Any]]) -> dict[str, dict[str, int]]:
    """split -> label -> rows, labels as first spelt; a row without a split goes to train."""
    counted: dict[str, dict[str, int]] = {}
    spelt: dict[str, str] = {}
    for row in rows:
        row["split"] = row["split"] or "train"
        counts = counted.setdefault(row["split"], {})
        label = spelt.setdefault(normalise(row["label"]), row["label"])
        counts[label] = counts.get(label, 0) + 1
    return counted


SHOWN = 5


def import_lines(imported: Imported, out: Path) -> Iterator[str]:
    """What was imported, in lines; the first dropped entries are named, `import.json` names all."""
    for split, counts in sorted(imported.rows.items()):
        labels = ", ".join(f"{label} {count}" for label, count in sorted(counts.items()))
        yield f"{split}: {sum(counts.values())} rows ({labels})"
    yield f"label set: {imported.labels}; label policy: {imported.policy}; split: {imported.split}"
    seen, published = sum(sum(counts.values()) for counts in imported.rows.values()), SETS[imported.set].published
    if published is not None and seen + len(imported.dropped) != published:
        yield f"the set was published with {published} images, this source names {seen + len(imported.dropped)}"
    yield f"kept: {seen} rows" + (f", {imported.frames} frames of a clip each" if imported.frames else "")
    if imported.votes:
        yield imported.votes
    if imported.dropped:
        yield f"dropped: {len(imported.dropped)}, all named in {out / RECORD}"
        yield from _reasons(imported.dropped)
    if imported.vanished:
        yield f"no row is left of: {one_line(', '.join(imported.vanished))}"
    if imported.terms:
        yield f"terms: {imported.terms}"
    yield f"written to: {out}"


def _reasons(dropped: Iterable[Mapping[str, str]]) -> Iterator[str]:
    """The commonest reasons, each with its count and its first entry."""
    first: dict[str, str] = {}
    counts: Counter[str] = Counter()
    for entry in dropped:
        reason = entry["reason"].replace(repr(entry["what"]), "it")
        first.setdefault(reason, entry["what"])
        counts[reason] += 1
    for reason, count in counts.most_common(SHOWN):
        yield f"  {one_line(first[reason])}: {one_line(reason)}" + (f" ({count} such)" if count > 1 else "")
    if len(counts) > SHOWN:
        yield f"  and {counts.total() - sum(n for _, n in counts.most_common(SHOWN))} for other reasons"


MANY_ROWS, NEARLY_ONE_A_ROW = 8, 0.8


def _refuse_free_text(source: str, rows: list[dict[str, Any]]) -> None:
    """Raises UserError if nearly every row has a label of its own."""
    labels = {normalise(row["label"]) for row in rows}
    if len(rows) >= MANY_ROWS and len(labels) >= NEARLY_ONE_A_ROW * len(rows):
        raise UserError(
            f"{source}: {len(labels)} labels for {len(rows)} rows, as {one_line(rows[0]['label'])[:40]!r}: that is a "
            "free text, no label; give --column label=NAME"
        )


def _policy(data_set: DataSet, name: str, policy: str | None) -> str:
    if policy is None:
        return next(iter(data_set.policies))
    if policy not in data_set.policies:
        raise UserError(f"{name} has no label policy {policy!r}: there are {', '.join(data_set.policies)}")
    return policy


def _split(rows: list[dict[str, Any]], share: float, seed: int) -> None:
    """Hold out whole groups, each counted with the label of its first row."""
    unit_of = [row["group"] or row.get("id") or row["file_name"] for row in rows]
    units: dict[str, str] = {}
    for unit, row in zip(unit_of, rows, strict=True):
        units.setdefault(unit, normalise(row["label"]))
    held_out = hold_out(units.items(), share, seed)
    for unit, row in zip(unit_of, rows, strict=True):
        row["split"] = "test" if unit in held_out else "train"


def _label_file(labels: LabelSet) -> str:
    if labels in BUILT_IN:
        return f"{labels.name}\n"
    return yaml.safe_dump({"labels": list(labels.labels), "polarity": dict(labels.polarity)}, sort_keys=False)
