"""Label sets: their labels, polarity and arousal signs and aliases, and how a text is compared with them.

Strict comparison (`match`, `affirmed`) serves rewards and accuracy. The lenient one (`resolve`) serves a single figure
that is reported beside the strict one.
"""

import re
import unicodedata
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cache, lru_cache
from pathlib import Path
from typing import Any

from emor3.errors import UserError, did_you_mean

MAX_LABELS = 1_000
"""All labels stand in every prompt and every question of coherence: more cost minutes a step."""

MAX_LABEL = 200
"""Characters of a label."""

SPECIAL = re.compile(
    r"<\|[^<>]*\|>|(?i:</?(?:[a-z]+_)*(?:image|img|video|audio)(?:_[a-z]+)*>)|\[/?(?:IMG|IMG_BREAK|IMG_END|INST)\]"
)
"""What processors and chat templates take for their own: `<|image_pad|>`, `<image>`, `<start_of_image>`, `[IMG]`."""


@dataclass(frozen=True)
class LabelSet:
    """K labels with what is known of them. Signs are +1 or -1; a label without a fixed sign is absent.

    Raises UserError if a label is blank or not a string, or if two labels differ only in what `normalise` drops.
    """

    name: str
    labels: tuple[str, ...]
    polarity: Mapping[str, int] = field(default_factory=dict, hash=False)
    arousal: Mapping[str, int] = field(default_factory=dict, hash=False)
    aliases: Mapping[str, str] = field(default_factory=dict, hash=False)
    """Other words for a label, read by `resolve` only: word -> label."""

    def __post_init__(self) -> None:
        if not self.labels:
            raise UserError(f"label set {self.name!r} has no labels: list at least one")
        if len(self.labels) > MAX_LABELS:
            raise UserError(
                f"label set {self.name!r} has {len(self.labels):,} labels: all stand in every prompt and question, so "
                f"at most {MAX_LABELS:,} are taken; is this the column of the labels?"
            )
        seen: dict[str, str] = {}
        for label in self.labels:
            if not isinstance(label, str) or not normalise(label):
                raise UserError(f"label set {self.name!r}: {label!r} is not a label: labels are non-blank strings")
            if fault := label_fault(label):
                raise UserError(f"label set {self.name!r}: {label!r} is not a label: {fault}")
            if normalise(label) in seen:
                twin = seen[normalise(label)]
                raise UserError(f"label set {self.name!r}: {twin!r} and {label!r} are the same label: keep one")
            seen[normalise(label)] = label
        for table, signs in (("polarity", self.polarity), ("arousal", self.arousal)):
            for label, sign in signs.items():
                if label not in self.labels or sign not in (1, -1):
                    raise UserError(f"label set {self.name!r}: {table} {label!r}: {sign!r} is not a label's +1 or -1")
        for alias, label in self.aliases.items():
            if not isinstance(alias, str) or label not in self.labels:
                raise UserError(f"label set {self.name!r}: alias {alias!r} leads to {label!r}, which is not in the set")
            if fault := label_fault(alias):
                raise UserError(f"label set {self.name!r}: {alias!r} is not an alias: {fault}")

    def listed(self) -> str:
        """The labels for a message, at most the first 30."""
        more = len(self.labels) - 30
        return ", ".join(self.labels[:30]) + (f" and {more} more" if more > 0 else "")


@lru_cache(maxsize=4096)
def label_fault(label: str) -> str | None:
    """Why a text cannot stand as a label in a prompt; None if it can. White space around it is left out anyway."""
    if any(unicodedata.category(character) in _UNFIT for character in label.strip()):
        return "it holds a line break, a control character or half of a surrogate pair"
    if len(label) > MAX_LABEL:
        return f"it has over {MAX_LABEL} characters"
    if found := SPECIAL.search(label):
        return f"models take {found[0]!r} for a token of their own"
    return None


_UNFIT = {"Cc", "Cs", "Zl", "Zp"}


# --- comparison ------------------------------------------------------------------------------------------------------

# Unicode's default-ignorable characters and the control characters that are not white space.
_INVISIBLE = re.compile(
    "[\x00-\x08\x0e-\x1b\x7f-\x84\x86-\x9f\u00ad\u034f\u061c\u115f\u1160\u17b4\u17b5\u180b-\u180f\u200b-\u200f"
    "\u202a-\u202e\u2060-\u206f\u3164\ufe00-\ufe0f\ufeff\uffa0\ufff0-\ufffb\U000e0000-\U000e0fff]+"
)
_PIECE = re.compile(r"\s+|\S{1,256}")
_OPENING_TAG = re.compile(r"<([a-z][a-z0-9]*)(?:\s[^<>]*)?>")
# Scripts written without spaces: any place inside such text may be the edge of a word.
_UNSPACED = re.compile(
    "[\u0e00-\u0fff\u1000-\u109f\u1780-\u17ff\u3040-\u30ff\u3400-\u9fff\uf900-\ufaff\U00020000-\U0003ffff]"
)
_NEGATION_BEFORE = re.compile(
    r"(?:\b(?:not|no|non|never|without|nor|neither)|n['\u2019]t)[\s-]+(?:(?:an?|any|the)\s+)?$"
)
_NEGATION = re.compile(r"\b(?:not|no|non|never|without|nor|neither|hardly|lacks?|cannot)\b|n['\u2019]t\b")
_LONGEST_NEGATION = 24


def without_invisible(text: str) -> str:
    """The text without the characters that no reader sees: zero-width, directional, variation selectors, controls."""
    return _INVISIBLE.sub("", text)


def fold_text(text: str) -> str:
    """NFKC, no invisible characters, white space folded, casefold. Linear time."""
    visible = without_invisible(_nfkc(text))
    return " ".join(_nfkc(visible.casefold()).split())


def _nfkc(text: str) -> str:
    # In pieces: sorting one endless run of combining marks takes quadratic time.
    return "".join(unicodedata.normalize("NFKC", piece) for piece in _PIECE.findall(text))


def normalise(text: str) -> str:
    """A label as it is compared: `fold_text`, without the punctuation and markup around it; inner text stays.

    A text of nothing but punctuation is its own label ("+", "-"). "" for a blank text. Linear time.

    >>> normalise("  **Awe!** ")
    'awe'
    >>> normalise("Awe, not fear.")
    'awe, not fear'
    """
    folded = fold_text(text)
    start, end = _peel(folded, 0, len(folded), keep="<>")
    while tag := _OPENING_TAG.match(folded, start, end):
        closing = f"</{tag[1]}>"
        if not folded.endswith(closing, tag.end(), end):
            break
        start, end = _peel(folded, tag.end(), end - len(closing), keep="<>")
    start, end = _peel(folded, start, end)
    return folded[start:end] or folded


def _peel(text: str, start: int, end: int, keep: str = "") -> tuple[int, int]:
    while start < end and text[start] not in keep and _is_decoration(text[start]):
        start += 1
    while start < end and text[end - 1] not in keep and _is_decoration(text[end - 1]):
        end -= 1
    return start, end


def _is_decoration(character: str) -> bool:
    category = unicodedata.category(character)
    return category[0] in "PZ" or category in ("Sm", "Sc", "Sk")


def match(text: str, labels: LabelSet) -> str | None:
    """The label of the set that the whole text is, spelt as in the set; None if it is no label or several."""
    return _by_normal_form(labels).get(normalise(text))


@lru_cache(maxsize=256)
def _by_normal_form(labels: LabelSet) -> dict[str, str]:
    return {normalise(label): label for label in labels.labels}


def affirmed(text: str, labels: LabelSet) -> str | None:
    """The one label that a free text names, as a whole word or phrase; None for none, several, or a negated one.

    "great joy" does not name "joy" if both are labels; "sadness, not fear" names two.

    >>> moods = LabelSet("moods", ("joy", "great joy", "fear"))
    >>> affirmed("I feel great joy.", moods), affirmed("no fear", moods), affirmed("joy and fear", moods)
    ('great joy', None, None)
    """
    normal_forms = _by_normal_form(labels)
    mentions = set(_mentions(fold_text(text), tuple(normal_forms)))
    if len(mentions) != 1:
        return None
    phrase, negated = mentions.pop()
    return None if negated else normal_forms[phrase]


def _mentions(text: str, phrases: tuple[str, ...]) -> Iterator[tuple[str, bool]]:
    """Phrases that stand in the text as whole words and not inside a longer one; True beside those negated."""
    covered = 0
    anywhere, longest_first = _search(phrases)
    for place in anywhere.finditer(text):
        start = place.start()
        for phrase in longest_first:
            end = start + len(phrase)
            if text.startswith(phrase, start) and _is_edge(text, start) and _is_edge(text, end):
                if end > covered:
                    covered = end
                    before = text[max(0, start - _LONGEST_NEGATION) : start]
                    yield phrase, _NEGATION_BEFORE.search(before) is not None
                break


@lru_cache(maxsize=256)
def _search(phrases: tuple[str, ...]) -> tuple[re.Pattern[str], list[str]]:
    anywhere = re.compile(f"(?={'|'.join(re.escape(phrase) for phrase in phrases)})")
    return anywhere, sorted(phrases, key=len, reverse=True)


def _is_edge(text: str, place: int) -> bool:
    return not (0 < place < len(text) and _is_spaced_word(text[place - 1]) and _is_spaced_word(text[place]))


def _is_spaced_word(character: str) -> bool:
    # Python's \w leaves out combining marks, which are vowels in many scripts.
    return (character.isalnum() or unicodedata.category(character)[0] == "M") and not _UNSPACED.match(character)


def resolve(text: str, labels: LabelSet) -> str | None:
    """Lenient reading of an answer: exact -> alias -> inflection -> None, for one label without any negation.

    Aliases belong to the set: "amazed" is awe in Mikels-8 and surprise in Ekman-6.
    """
    exact = match(text, labels)
    folded = fold_text(text)
    if exact is not None or _NEGATION.search(folded):
        return exact
    words = {**{fold_text(alias): label for alias, label in labels.aliases.items()}, **_by_normal_form(labels)}
    named = {words[phrase] for phrase, _ in _mentions(folded, tuple(words))}
    if not named:
        stems = {_stem(word): label for word, label in words.items()}
        named = {stems[stem] for stem in map(_stem, re.findall(r"[^\W\d_]+", folded)) if stem in stems}
    return named.pop() if len(named) == 1 else None


MASK = "[...]"
"""Stands in place of a word that names a label."""


def mask(text: str, labels: LabelSet) -> str:
    """The text with every label, alias and English inflection of one replaced by `MASK`; other words stay as written.

    So it is found whether a text names a label at all (`emor3.method.canaries`). Invisible characters and
    look-alike forms (NFKC), which `affirmed` reads through, go first, so that they hide no label. Linear time.

    >>> mask("A fearful child, amid joy.", LabelSet("moods", ("fear", "joy")))
    'A [...] child, amid [...].'
    """
    text = without_invisible(_nfkc(text))
    phrases = [label for label in (*labels.labels, *labels.aliases) if len(label.split()) > 1]
    for phrase in sorted(phrases, key=len, reverse=True):
        text = re.sub(rf"(?<!\w){re.escape(phrase)}(?!\w)", MASK, text, flags=re.IGNORECASE)
    stems = _stems(labels)
    return re.sub(r"[^\W\d_]+", lambda word: MASK if _stem(word[0].casefold()) in stems else word[0], text)


@lru_cache(maxsize=256)
def _stems(labels: LabelSet) -> frozenset[str]:
    return frozenset(_stem(word.casefold()) for word in (*labels.labels, *labels.aliases) if len(word.split()) == 1)


def _stem(word: str) -> str:
    """English inflections off: "fearful", "fears" and "feared" share the stem of "fear"."""
    for suffix in ("s", "ly", "ness", "ful", "ment", "ing", "ed", "e"):
        if word.endswith(suffix) and len(word) - len(suffix) > 2 and not (suffix == "s" and word.endswith("ss")):
            word = word.removesuffix(suffix)
    return word


# --- built-in sets ---------------------------------------------------------------------------------------------------

LABEL_SETS = Path(__file__).with_name("label_sets")
"""One YAML file for each built-in set, in the form that users write."""

BY_PRECEDENCE = ("mikels8", "ekman6", "ekman7", "plutchik8", "webemo25", "webemo7", "webemo2", "sentiment3")
"""Order in which the sets are tried on labels or columns found in data; others follow by name."""

# Read at first use by `__getattr__`, so that the core does not pay for YAML.
BUILT_IN: tuple[LabelSet, ...]
MIKELS8: LabelSet
EKMAN6: LabelSet
EKMAN7: LabelSet
PLUTCHIK8: LabelSet
WEBEMO25: LabelSet
WEBEMO7: LabelSet
WEBEMO2: LabelSet
SENTIMENT3: LabelSet


def __getattr__(name: str) -> object:
    if name == "BUILT_IN":
        return tuple(map(get_label_set, _built_in_names()))
    if name.isupper() and name.lower() in _built_in_names():
        return get_label_set(name.lower())
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


@cache
def _built_in_names() -> tuple[str, ...]:
    found = sorted(path.stem for path in LABEL_SETS.glob("*.yaml"))
    return tuple(sorted(found, key=lambda name: BY_PRECEDENCE.index(name) if name in BY_PRECEDENCE else len(found)))


@cache
def get_label_set(name: str) -> LabelSet:
    """Built-in label set by name. Raises UserError, naming the nearest, for an unknown one."""
    names = _built_in_names()
    if name in names:
        return read_label_set(LABEL_SETS / f"{name}.yaml")
    hint = f"{did_you_mean(name, names)} take one of".lstrip()
    raise UserError(f"unknown label set {name!r}: {hint} {', '.join(names)}, or give a YAML file or a list")


def read_label_set(path: Path) -> LabelSet:
    """The label set of a YAML file, built-in or a user's: the name of a built-in one, a list of labels, or a mapping.

    Raises UserError if the file cannot be read, or as `label_set_from`.
    """
    from emor3.storage.yaml_text import read_yaml  # here, so that the core does not pay for YAML

    values = read_yaml(path, "label set")
    return get_label_set(values) if isinstance(values, str) else label_set_from(values, path.stem)


def label_set_from(values: Sequence[str] | Mapping[str, object], name: str) -> LabelSet:
    """A user's label set: a list of labels, or a mapping with `labels` and optional `polarity`, `arousal`, `aliases`.

    Raises UserError for fewer than two labels, unknown keys, doubles, or signs and aliases that fit no label.
    """
    fields = dict(values) if isinstance(values, Mapping) else {"labels": values}
    if unknown := sorted(map(str, fields.keys() - {"labels", "polarity", "arousal", "aliases"})):
        raise UserError(f"label set {name!r}: unknown {', '.join(unknown)}: use labels, polarity, arousal, aliases")
    labels = fields.get("labels")
    if not isinstance(labels, list | tuple) or len(labels) < 2:
        raise UserError(f"label set {name!r} needs a list of at least two labels")
    spelt = tuple(label.strip() if isinstance(label, str) else label for label in labels)
    tables = (_table(fields, table, name) for table in ("polarity", "arousal", "aliases"))
    return LabelSet(name, spelt, *tables)


def _table(fields: Mapping[str, object], table: str, name: str) -> Mapping[str, Any]:
    words = fields.get(table) or {}
    if not isinstance(words, Mapping):
        raise UserError(f"label set {name!r}: {table} must map words to values")
    return words


# --- the levels of WebEmo --------------------------------------------------------------------------------------------

_WEBEMO_7_OF_25 = {
    "love": "affection gratitude lust",
    "joy": "cheerfulness contentment enthrallment optimism pride relief zest",
    "surprise": "surprise",
    "confusion": "confusion",
    "anger": "disgust envy exasperation irritability rage",
    "fear": "horror nervousness",
    "sadness": "disappointment neglect sadness shame suffering sympathy",
}
_WEBEMO_2_OF_7 = {"positive": "love joy surprise", "negative": "confusion anger fear sadness"}
_CHILDREN = {("webemo25", "webemo7"): _WEBEMO_7_OF_25, ("webemo7", "webemo2"): _WEBEMO_2_OF_7}


def fold(label: str, source: LabelSet, target: LabelSet) -> str:
    """The label of a coarser set that a finer one's label belongs to, along WebEmo 25 -> 7 -> 2.

    Raises UserError if `label` is not in `source` or `source` does not fold into `target`.
    """
    if label not in source.labels:
        raise UserError(f"label {label!r} is not in the set {source.name} ({', '.join(source.labels)})")
    if source == target:
        return label
    for (finer, coarser), children in _CHILDREN.items():
        if finer == source.name:
            parent = next(parent for parent, names in children.items() if label in names.split())
            return fold(parent, get_label_set(coarser), target)
    raise UserError(f"label set {source.name} does not fold into {target.name}: only webemo25 -> webemo7 -> webemo2 do")
