"""Read labelled images: a folder with `metadata.jsonl` beside the images, one JSON object a line.

A row has `label` and `file_name` (relative to the folder); or `file_names`, a list, where several images belong to one
label; or only a `text`, which may also accompany images and stands in the prompt. It may have `split` (default: train),
`id` (default: the first file name; a row without images needs one), `distribution` (votes over the labels), `valence`,
`arousal`, `group` (near copies share one), `attributes` (what is known of the picture) and `reasoning` (a whole
completion to learn from). Other fields are left alone: a name or a theme must never reach a model. A file
`labels.yaml` beside the manifest names the label set of its labels.
"""

import json
import math
import os
import re
import reprlib
import sys
from array import array
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from functools import lru_cache
from pathlib import Path
from typing import Any, TypeAlias, overload
from zlib import crc32

import numpy as np
from numpy.typing import NDArray

from emor3.errors import UserError
from emor3.method import labels as taxonomy
from emor3.method.labels import LabelSet
from emor3.method.types import Attribute, Sample
from emor3.storage.files import regular

MANIFEST = "metadata.jsonl"
LABELS = "labels.yaml"
EMBEDDED = "embedded:"
"""Prefix of the drawn domains that come with the package, as in `embedded:scenes8`."""

MAX_ROW_BYTES = 1_000_000
"""Longer lines are refused before they are read whole: no prompt holds that much."""
MAX_TEXT = 32_000
"""Characters of a row's text or reasoning: about four times what a prompt holds in the paper."""
MAX_IMAGES = 100
"""Images of one row."""

LabelSpec: TypeAlias = LabelSet | str | Sequence[str] | None
"""A label set, a built-in one's name, a YAML file, labels (a list or `a,b`), or None for the labels in the data."""


@dataclass(frozen=True)
class Source:
    """A manifest whose rows were found good, and how they are read."""

    folder: Path
    labels: LabelSet
    label_field: str
    prefix: str = ""
    """What ids and groups begin with."""

    def read(self, number: int, start: int, checksum: int) -> Sample:
        """The row in a line that begins at a byte. Raises UserError if it is no longer what was loaded."""
        manifest = self.folder / MANIFEST
        try:
            with open(manifest, "rb", opener=regular) as file:  # each time, so that processes share no position
                file.seek(start)
                line = file.readline(MAX_ROW_BYTES + 1)
        except OSError as error:
            raise UserError(f"{manifest} cannot be read any more ({error}): put it back and start again") from None
        if crc32(line) != checksum:
            raise UserError(f"{manifest} has changed since it was loaded: start again")
        where = _line_name(self.folder, number)
        sample = to_sample(parse_row(line, where), self.folder, self.labels, self.label_field, where)
        return replace(sample, id=self.prefix + sample.id, group=sample.group and self.prefix + sample.group)


class LazySamples(Sequence[Sample]):
    """Samples that stay in their manifests until each is asked for; 32 bytes a row are kept."""

    def __init__(self, sources: Sequence[Source], rows: NDArray[np.int64]) -> None:
        """`rows` (N, 4): place in `sources`; number, first byte and checksum of the manifest's line."""
        self.sources = sources
        self.rows = rows

    def __len__(self) -> int:
        return len(self.rows)

    @overload
    def __getitem__(self, place: int) -> Sample: ...

    @overload
    def __getitem__(self, place: slice) -> "LazySamples": ...

    def __getitem__(self, place: int | slice) -> "Sample | LazySamples":
        if isinstance(place, slice):
            return LazySamples(self.sources, self.rows[place])
        source, *line = self.rows[place].tolist()
        sample: Sample = self.sources[source].read(*line)
        return sample

    def pick(self, places: Sequence[int]) -> "LazySamples":
        """The samples at these places, in their order."""
        return LazySamples(self.sources, self.rows[np.asarray(places)])


def load_samples(
    path: str, *, split: str | None = None, labels: LabelSpec = None, label_field: str = "label"
) -> LazySamples:
    """Samples of one split (None: all of them) in the manifest's order; all are checked here, and read again on use.

    Every row of the manifest decides which labels are found in the data, so all splits share one label set.
    Raises UserError for a missing folder or image, a malformed row, a label outside the set, a repeated id and a split
    without rows, naming the row. Images are not opened.

    >>> from tempfile import TemporaryDirectory
    >>> with TemporaryDirectory() as folder:
    ...     rows = [{"id": "1", "text": "It rains.", "label": "gloomy"}, {"id": "2", "text": "Sun!", "label": "glad"}]
    ...     _ = Path(folder, MANIFEST).write_text("\\n".join(map(json.dumps, rows)))
    ...     samples = load_samples(folder, split="train")
    ...     [(sample.id, sample.label) for sample in samples], samples[0].labels.labels
    ([('1', 'gloomy'), ('2', 'glad')], ('glad', 'gloomy'))
    """
    folder = resolve_folder(path)
    label_set = label_set_for(label_spec(folder, labels, label_field), found_labels(folder, label_field))
    rows, repetitions = array("q"), Repetitions(folder)
    for where, line, number, start in manifest_lines(folder):
        row = parse_row(line, where)
        if split is not None and split_of(row) != split:
            continue
        sample = to_sample(row, folder, label_set, label_field, where)
        if repetitions.has(sample.id):
            raise UserError(f"{where}: the id {_shown(sample.id)} is used by an earlier row: ids must be unique")
        rows.extend((0, number, start, crc32(line)))
    if not rows:
        found = describe_splits(parse_row(line, where) for where, line, *_ in manifest_lines(folder))
        raise UserError(f"{path}: no rows{in_split(split)}; {found}")
    return LazySamples([Source(folder, label_set, label_field)], np.frombuffer(rows, np.int64).reshape(-1, 4))


class Repetitions:
    """Finds the ids that a manifest repeats.

    It is first gone through for the hashes that come twice; of the ids only those with such a hash are then kept.
    """

    def __init__(self, folder: Path) -> None:
        hashes = array("q")
        for where, line, *_ in manifest_lines(folder):
            with suppress(UserError, LookupError, TypeError):  # a bad row, which its reader reports
                hashes.append(hash(row_id(parse_row(line, where))))
        found, counts = np.unique(np.array(hashes, np.int64), return_counts=True)
        self._suspects = set(found[counts > 1].tolist())
        self._seen = set[str]()

    def has(self, name: str) -> bool:
        """Whether this was asked of the id before."""
        if hash(name) not in self._suspects:
            return False
        seen = name in self._seen
        self._seen.add(name)
        return seen


def load_mixture(
    paths: Sequence[str], *, split: str | None = None, labels: LabelSpec = None, label_field: str = "label"
) -> LazySamples:
    """Samples of several folders, each with the label set of its own where `labels` is None.

    Ids and groups then begin with their folder's path, so that two sets never share one; those of a single folder stay
    as they are. Raises UserError as `load_samples`, and for a folder given twice.
    """
    if len(set(paths)) < len(paths):
        raise UserError(f"data.train names a folder twice: {', '.join(paths)}")
    loaded = [load_samples(path, split=split, labels=labels, label_field=label_field) for path in paths]
    if len(paths) == 1:
        return loaded[0]
    sources = [replace(samples.sources[0], prefix=f"{path}:") for path, samples in zip(paths, loaded, strict=True)]
    return LazySamples(sources, np.concatenate([s.rows + np.array([place, 0, 0, 0]) for place, s in enumerate(loaded)]))


def label_spec(folder: Path, labels: LabelSpec, label_field: str = "label") -> LabelSpec:
    """The label set asked for, else the one that the folder's own `labels.yaml` names, else None."""
    if labels is None and label_field == "label" and os.path.lexists(folder / LABELS):
        return str(folder / LABELS)  # also where it is a link that leads nowhere, which reading it says
    return labels


def found_labels(folder: Path, label_field: str) -> list[str]:
    """Labels that the rows name, each once. Raises UserError for a malformed row or one without a label."""
    rows = ((where, parse_row(line, where)) for where, line, *_ in manifest_lines(folder))
    return list(dict.fromkeys(name for where, row in rows for name in named_labels(row, label_field, where)))


def resolve_folder(path: str) -> Path:
    """Folder of a data set, given as a path or as `embedded:NAME`. Raises UserError if there is no manifest."""
    if path.startswith(EMBEDDED):
        from emor3.tiny.folders import ensure_domain  # draws with the tiny model's world only when asked to

        return ensure_domain(path.removeprefix(EMBEDDED))
    folder = Path(path).expanduser()
    if not folder.is_dir():
        raise UserError(f"{path}: no such folder; give a folder with {MANIFEST} in it, or embedded:scenes8")
    if not (folder / MANIFEST).is_file():
        raise UserError(f"{path}: no {MANIFEST} in this folder; the README tells what a row of it holds")
    return folder


def manifest_lines(folder: Path) -> Iterator[tuple[str, bytes, int, int]]:
    """Each non-blank line of a folder's manifest: its name in messages, its bytes, its number and its first byte.

    Of a line over `MAX_ROW_BYTES`, which `parse_row` refuses, there are one more bytes than that.
    """
    manifest, number = folder / MANIFEST, 0
    with open(manifest, "rb", opener=regular) as file:
        while line := file.readline(MAX_ROW_BYTES + 1):
            number, start, rest = number + 1, file.tell() - len(line), line
            while len(rest) > MAX_ROW_BYTES and not rest.endswith(b"\n"):
                rest = file.readline(MAX_ROW_BYTES + 1)
            if line.strip():
                yield _line_name(folder, number), line, number, start


def _line_name(folder: Path, number: int) -> str:
    return f"{folder / MANIFEST} line {number}"


def parse_row(line: bytes, where: str) -> dict[str, Any]:
    """One manifest line as a dict. Raises UserError if it is too long, not a JSON object or no proper text."""
    if len(line) > MAX_ROW_BYTES:
        raise UserError(f"{where}: a row of over {MAX_ROW_BYTES:,} bytes: shorten its texts")
    try:
        row = json.loads(line)
    except (ValueError, RecursionError) as error:
        raise UserError(f"{where}: not JSON ({error})") from None
    if not isinstance(row, dict):
        raise UserError(f"{where}: a row must be a JSON object, not {type(row).__name__}")
    if _SURROGATE.search(line):
        _refuse_surrogates(row, where)
    return row


_SHORT = reprlib.Repr()
_SHORT.maxstring = _SHORT.maxother = 200
_shown = _SHORT.repr
"""What a row holds, cut short for a message of one line."""

_SURROGATE = re.compile(rb"\\u[dD][89a-fA-F]|\xed[\xa0-\xbf]")
"""Halves of surrogate pairs, of which some may be whole; Python's JSON takes them in both spellings."""


def _refuse_surrogates(row: Mapping[str, Any], where: str) -> None:
    for name, value in row.items():
        try:
            json.dumps({name: value}, ensure_ascii=False).encode()
        except UnicodeEncodeError as error:
            half = ascii(error.object[error.start])
            raise UserError(f"{where}: {name!r} holds half of a surrogate pair ({half}), no character") from None


def split_of(row: Mapping[str, Any]) -> str:
    """Split of a row; data without splits is all `train`."""
    return str(row.get("split", "train"))


def read_label(row: Mapping[str, Any], label_field: str, where: str) -> str:
    """The row's label as it is written there. Raises UserError if it is missing, blank or not a string."""
    label = row.get(label_field)
    if not isinstance(label, str) or not _normalise(label):
        raise UserError(f"{where}: {label_field!r} must be a label in words, found {_shown(label)}")
    _refuse_unfit(label, where)
    return label


def _refuse_unfit(label: str, where: str) -> None:
    if fault := taxonomy.label_fault(label):
        raise UserError(f"{where}: {_shown(label)} is not a label: {fault}")


def named_labels(row: Mapping[str, Any], label_field: str, where: str) -> list[str]:
    """Labels that a row names: its own and those that viewers could vote for. Raises UserError if one is blank."""
    votes = row.get("distribution") if label_field == "label" else None
    voted = votes if isinstance(votes, dict) else {}
    if not all(map(_normalise, voted)):
        raise UserError(f"{where}: 'distribution' has votes for a blank label")
    for name in voted:
        _refuse_unfit(name, where)
    return [read_label(row, label_field, where), *voted]


# A large manifest writes the same few labels again and again.
_normalise = lru_cache(maxsize=4096)(taxonomy.normalise)
_match = lru_cache(maxsize=4096)(taxonomy.match)


def to_sample(row: Mapping[str, Any], folder: Path, labels: LabelSet, label_field: str, where: str) -> Sample:
    """A manifest row as a sample. Raises UserError for a label outside the set, a missing image or a bad field."""
    written = read_label(row, label_field, where)
    label = _match(written, labels)
    if label is None:
        raise UserError(f"{where}: label {written!r} is not in the set {labels.name} ({labels.listed()})")
    group = row.get("group")
    images, text = _content(row, folder, where)
    return Sample(
        id=row_id(row),
        images=images,
        text=text,
        label=label,
        labels=labels,
        split=split_of(row),
        distribution=_distribution(row, labels, where) if label_field == "label" else None,
        valence=_number(row, "valence", where),
        arousal=_number(row, "arousal", where),
        group=None if group is None else str(group),
        reasoning=_text(row, "reasoning", where),
        attributes=_attributes(row, where),
    )


def file_names(row: Mapping[str, Any]) -> list[Any]:
    """Names of the images of a row, as they are written there."""
    if "file_name" in row:
        return [row["file_name"]]
    return list(row.get("file_names", ()))


def row_id(row: Mapping[str, Any]) -> str:
    """Id of a row, by default the name of its first image."""
    return str(row["id"] if "id" in row else file_names(row)[0])


def _content(row: Mapping[str, Any], folder: Path, where: str) -> tuple[tuple[str, ...], str | None]:
    """Paths of a row's images, and its text."""
    text = _text(row, "text", where)
    if text is not None and not text.strip():
        raise UserError(f"{where}: 'text' is blank: leave it out, or say what a reader would see")
    if "file_name" in row and "file_names" in row:
        raise UserError(f"{where}: give 'file_name' for one image or 'file_names' for several, not both")
    if not isinstance(row.get("file_names", []), list):
        raise UserError(f"{where}: 'file_names' must be a list of paths, found {_shown(row['file_names'])}")
    names = file_names(row)
    if len(names) > MAX_IMAGES:
        raise UserError(f"{where}: {len(names):,} images: at most {MAX_IMAGES} belong to one row")
    if not names and text is None:
        raise UserError(f"{where}: neither an image ('file_name', 'file_names') nor a 'text': a row needs one of them")
    if not names and "id" not in row:
        raise UserError(f"{where}: a row without an image needs an 'id'")
    field = "file_names" if "file_names" in row else "file_name"
    return tuple(_image_path(name, field, folder, where) for name in names), text


def _image_path(name: object, field: str, folder: Path, where: str) -> str:
    if not isinstance(name, str) or not name:
        raise UserError(f"{where}: {field!r} must be a path relative to the folder, found {_shown(name)}")
    if name.startswith("/") or ".." in name.split("/"):
        raise UserError(f"{where}: {field!r} leads out of the folder: {_shown(name)}")
    path = os.path.join(folder, name)
    if not os.path.isfile(path):
        raise UserError(f"{where}: image {_shown(name)} does not exist in {folder}: check its path")
    return path


def _distribution(row: Mapping[str, Any], labels: LabelSet, where: str) -> dict[str, float] | None:
    votes = row.get("distribution")
    if votes is None:
        return None
    if not isinstance(votes, dict) or not all(_is_finite(n) and n >= 0 for n in votes.values()):
        raise UserError(f"{where}: 'distribution' must map labels to votes or shares of at least 0")
    total = sum(votes.values())
    shares = {_match(name, labels): n / total for name, n in votes.items()} if 0 < total < math.inf else {}
    named = {label: share for label, share in shares.items() if label is not None}
    if len(named) != len(votes):
        raise UserError(f"{where}: 'distribution' must hold votes for labels of the set {labels.name}, each once")
    return named


def _attributes(row: Mapping[str, Any], where: str) -> dict[str, Attribute]:
    values = row.get("attributes")
    if values is None:
        return {}
    if not isinstance(values, dict):
        raise UserError(
            f"{where}: 'attributes' must map names to words, numbers or lists of words, found {_shown(values)}"
        )
    return {name: _attribute(name, value, where) for name, value in values.items()}


def _attribute(name: str, value: Any, where: str) -> Attribute:
    if isinstance(value, list) and all(isinstance(word, str) for word in value):
        return tuple(value)
    if isinstance(value, str) or (isinstance(value, int | float) and not isinstance(value, bool)):
        return value
    raise UserError(
        f"{where}: attribute {_shown(name)} must be a word, a number or a list of words, found {_shown(value)}"
    )


def _text(row: Mapping[str, Any], field: str, where: str) -> str | None:
    value = row.get(field)
    if value is not None and not isinstance(value, str):
        raise UserError(f"{where}: {field!r} must be a text, found {_shown(value)}")
    if value is not None and len(value) > MAX_TEXT:
        raise UserError(f"{where}: {field!r} has {len(value):,} characters: shorten it to {MAX_TEXT:,} at most")
    return value


def _number(row: Mapping[str, Any], field: str, where: str) -> float | None:
    value = row.get(field)
    if value is None:
        return None
    if not _is_finite(value):
        raise UserError(f"{where}: {field!r} must be a number, found {_shown(value)}")
    return float(value)


def _is_finite(value: Any) -> bool:
    """Whether a value is a number that a float can hold: JSON has NaN, Infinity and whole numbers of any length."""
    return isinstance(value, int | float) and not isinstance(value, bool) and abs(value) <= sys.float_info.max


def label_set_for(spec: LabelSpec, found: Iterable[str]) -> LabelSet:
    """The label set a person asked for; for None that of the labels found, a built-in one if they are the same.

    Raises UserError for an unknown name, a malformed file or fewer than two labels.
    """
    if spec is None:
        return _label_set_of(found)
    if isinstance(spec, LabelSet):
        return spec
    if not isinstance(spec, str):
        return taxonomy.label_set_from(list(spec), "custom")
    if Path(spec).suffix in (".yaml", ".yml"):
        return taxonomy.read_label_set(Path(spec))
    if "," in spec:
        return taxonomy.label_set_from([label.strip() for label in spec.split(",")], "custom")
    return taxonomy.get_label_set(spec)


def _label_set_of(found: Iterable[str]) -> LabelSet:
    spelt: dict[str, str] = {}
    for label in found:
        spelt.setdefault(taxonomy.normalise(label), label.strip())
    for built_in in taxonomy.BUILT_IN:
        if {taxonomy.normalise(label) for label in built_in.labels} == spelt.keys():
            return built_in
    return taxonomy.label_set_from(sorted(spelt.values()), "from the data")


def in_split(split: str | None) -> str:
    return "" if split is None else f" in split {split!r}"


def describe_splits(rows: Iterable[Mapping[str, Any]]) -> str:
    """What a data set has instead, for messages: "it has test 249, train 495"."""
    counts = Counter(split_of(row) for row in rows)
    return "it has " + (", ".join(f"{name} {count}" for name, count in sorted(counts.items())) or "no rows at all")
