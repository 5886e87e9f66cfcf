"""What copies were found, for the screen and for a paper: counts, groups, and how they were looked for."""

import json
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from datetime import UTC, datetime
from itertools import islice
from pathlib import Path
from typing import Any

from rich import box
from rich.table import Column, Table

from emor3 import __version__
from emor3.data.copies.hashes import DISTANCE, PIXELS, SIDE
from emor3.data.copies.overlaps import Copies, Group, Overlap
from emor3.data.copies.scan import Cell, Name, content_sums, manifest_sum
from emor3.errors import UserError, one_line
from emor3.stats.format import count, markdown_table, percent_value
from emor3.storage.images import data_uri, open_image
from emor3.storage.outputs import new_output, write_json, write_whole
from emor3.templating import page_environment

SUMMARY, GROUPS, MARKDOWN, PAGE = "copies.json", "groups.jsonl", "report.md", "report.html"
PICTURED = 40
"""Groups that the page shows with their pictures, of each no more than `MEMBERS`."""
MEMBERS = 8
THUMBNAIL = 112
FAULTS_SHOWN = 5
LIMITS = (
    "The hash finds pictures that were resized, recompressed, converted or slightly retouched. It does not find crops, "
    "mirror images, rotations or pictures with a frame around them, so the counts are lower bounds. Aligned faces, "
    "logos and flat drawings may resemble each other without being copies: look at the groups before you quote near "
    "copies of such sets."
)


def method(most: int) -> str:
    """How copies were looked for, in sentences that a paper can take over."""
    return (
        "Two images have the same file if the SHA-256 of their files is equal. They are near copies if their "
        f"perceptual hashes differ in at most {most} of {SIDE * SIDE - 1} bits: each picture, upright and as grey "
        f"values, is scaled to {PIXELS} x {PIXELS} pixels, and the hash says which of the {SIDE} x {SIDE} lowest "
        "frequencies of its cosine transform, the mean aside, lie above their median. Pictures without contrast have "
        "no hash and are compared by their files. All pairs are compared. An image counts once, however many copies "
        "it has; copies of the same file are among the near ones. A group holds images that are joined by one near "
        "copy after another."
    )


def summary(copies: Copies, most: int = DISTANCE) -> dict[str, Any]:
    """Content of `copies.json`."""
    scan, sums = copies.scan, content_sums(copies.scan)
    sizes = _sizes(copies)
    groups = Counter(kind for group in copies.groups() for kind in _kinds(group))
    return {
        "emor3": __version__,
        "date": datetime.now(UTC).date().isoformat(),
        "most_bits": most,
        "sets": [
            {
                "set": name,
                "rows": scan.rows[name],
                "images": {cell.split: size for cell, size in sizes.items() if cell.set == name},
                "manifest_sha256": manifest_sum(name),
                "images_sha256": sums[name],
            }
            for name in scan.sets
        ],
        "left_out": len(scan.faults),
        "faults": scan.faults,
        "without_contrast": int(scan.blank.sum()),
        "overlaps": [_overlap(copies, overlap) for overlap in copies.overlaps],
        "pairs_by_bits": {str(bits): copies.distances[bits] for bits in sorted(copies.distances)},
        "groups": {"all": groups["all"], "two_splits": groups["two_splits"], "two_labels": groups["two_labels"]},
    }


def _sizes(copies: Copies) -> dict[Cell, int]:
    return {cell: int((copies.scan.cell == place).sum()) for place, cell in enumerate(copies.scan.cells)}


def _kinds(group: Group) -> Iterator[str]:
    yield "all"
    if len({(member.set, member.split) for member in group.members}) > 1:
        yield "two_splits"
    if group.two_labels:
        yield "two_labels"


def _overlap(copies: Copies, overlap: Overlap) -> dict[str, Any]:
    cells = copies.scan.cells
    of, within = cells[overlap.of], cells[overlap.within]
    return {"of": of._asdict(), "in": within._asdict(), "same_file": overlap.same_file, "near": overlap.near}


HEADINGS = ("images of", "number", "with a copy in", "same file", "near copy")


def overlap_rows(copies: Copies) -> list[tuple[str, str, str, str, str]]:
    """Rows of the table: the pairs of splits that share an image."""
    sizes, cells = list(_sizes(copies).values()), copies.scan.cells
    rows: list[tuple[str, str, str, str, str]] = []
    for overlap in copies.overlaps:
        if overlap.near or overlap.same_file:
            whole = sizes[overlap.of]
            where = "itself" if overlap.of == overlap.within else _cell(cells[overlap.within])
            same, near = (f"{count(n)} ({percent_value(n / whole)}%)" for n in (overlap.same_file, overlap.near))
            rows.append((_cell(cells[overlap.of]), count(whole), where, same, near))
    return rows


def _cell(cell: Cell) -> str:
    return one_line(f"{cell.set} / {cell.split}")


def copies_table(copies: Copies) -> Table:
    """The overlaps as a person reads them."""
    title = f"{count(len(copies.scan.cell))} images of {len(copies.scan.cells)} splits"
    table = Table(*(Column(name, overflow="fold") for name in HEADINGS), box=box.SIMPLE, title=title)
    for row in overlap_rows(copies):
        table.add_row(*row)
    return table


def summary_lines(found: Mapping[str, Any]) -> Iterator[str]:
    """What the table does not say, in lines."""
    groups = found["groups"]
    if not groups["all"]:
        yield f"no two images have the same file or hashes that differ in at most {found['most_bits']} bits"
    else:
        yield (
            f"{count(groups['all'])} groups of copies: {count(groups['two_splits'])} reach over two splits or sets, "
            f"{count(groups['two_labels'])} have two labels in one set"
        )
    if found["without_contrast"]:
        yield f"{count(found['without_contrast'])} pictures without contrast are compared by their files only"
    for fault in found["faults"][:FAULTS_SHOWN]:
        yield f"left out: {one_line(fault)}"
    if (more := found["left_out"] - FAULTS_SHOWN) > 0:
        yield f"and {count(more)} more are left out"


def write_copies(copies: Copies, found: Mapping[str, Any], out: Path) -> None:
    """Write a new folder: `copies.json`, `groups.jsonl` with every group, and the report as Markdown and as a page.

    Raises UserError if it exists and holds something.
    """
    with new_output(out) as folder:
        write_json(folder / SUMMARY, found)
        with (folder / GROUPS).open("w", encoding="utf-8", errors="backslashreplace") as file:
            for group in copies.groups():
                file.write(json.dumps(_group_row(group), ensure_ascii=False) + "\n")
        write_whole(folder / MARKDOWN, markdown(copies, found))
        write_whole(folder / PAGE, page(copies, found))


def _group_row(group: Group) -> dict[str, Any]:
    members = [{name: value for name, value in member._asdict().items() if value} for member in group.members]
    return {"same_file": group.same_file, "most_bits": group.distance, "members": members}


def markdown(copies: Copies, found: Mapping[str, Any]) -> str:
    """The report as Markdown."""
    sets = [(one_line(s["set"]), count(sum(s["images"].values())), s["images_sha256"]) for s in found["sets"]]
    bits = [(bits, count(pairs)) for bits, pairs in found["pairs_by_bits"].items()]
    parts = [
        f"# Copies of images in {', '.join(name for name, *_ in sets)}\n",
        f"emor3 {found['emor3']}, {found['date']}.\n",
        markdown_table(("set", "images", "SHA-256 of its images"), sets),
        "".join(f"{line}\n\n" for line in summary_lines(found)).rstrip("\n") + "\n",
        markdown_table(HEADINGS, overlap_rows(copies)),
        f"{method(found['most_bits'])}\n",
        f"{LIMITS}\n",
    ]
    if bits:
        parts += [
            "Pairs of different hashes by the bits in which they differ:\n",
            markdown_table(("bits", "pairs"), bits),
        ]
    return "\n".join(parts)


def page(copies: Copies, found: Mapping[str, Any]) -> str:
    """The report as one HTML page without outside references, with pictures of the first groups."""
    return (
        page_environment("data")
        .get_template("copies.html")
        .render(
            found=found,
            headings=HEADINGS,
            rows=overlap_rows(copies),
            lines=list(summary_lines(found)),
            method=method(found["most_bits"]),
            limits=LIMITS,
            groups=[_pictured(group) for group in islice(copies.groups(), PICTURED)],
            side=THUMBNAIL,
        )
    )


def _pictured(group: Group) -> dict[str, Any]:
    shown: Sequence[Name] = group.members[:MEMBERS]
    what = "same file" if group.same_file else f"up to {group.distance} bits apart"
    return {"what": what, "more": len(group.members) - len(shown), "members": list(_members(shown))}


def _members(shown: Iterable[Name]) -> Iterator[dict[str, str]]:
    for name in shown:
        try:
            image = open_image(name.path, at_least=THUMBNAIL)
        except UserError:  # it has vanished since it was looked at
            address = ""
        else:
            image.thumbnail((THUMBNAIL, THUMBNAIL))
            address = data_uri(image, "JPEG", quality=80)
        yield {**name._asdict(), "address": address}
