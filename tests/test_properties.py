"""Whatever a model, a person or a data set writes: parser, normaliser, recipes and importers keep their promises.

The examples are drawn by hypothesis from a fixed seed, so that every run tries the same ones.
"""

import json
import string
import tempfile
from collections.abc import Callable
from contextlib import suppress
from functools import cache
from pathlib import Path
from typing import Any

import pytest
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st

import layouts
from emor3.data.folders import load_samples
from emor3.data.importers.importing import import_data
from emor3.data.importers.tables import FIELDS
from emor3.errors import UserError
from emor3.method import labels as taxonomy
from emor3.method.labels import LabelSet, affirmed, mask, match, normalise, resolve
from emor3.method.rewards import RewardSettings, confidence_value
from emor3.method.thinking import TAGS, parse, read_conclusion
from emor3.runs.recipe import Recipe, build_recipe, load_recipe
from emor3.settings import MOST

settings.register_profile("same examples every time", derandomize=True, database=None, deadline=None, max_examples=100)
settings.load_profile("same examples every time")
FILES = 40  # examples that are written to files, which takes most of the time of these tests

TAG_PARTS = [f"<{close}{tag}>" for tags in TAGS.values() for tag in tags for close in ("", "/")]
PARTS = [*TAG_PARTS, "\\boxed{", "\\text{", "{", "}", "joy", " ", "\n", "**", "<b>", "</b>", "\u200b", "$"]
anything = st.text(max_size=12)
completions = st.lists(st.sampled_from(PARTS) | anything, max_size=14).map("".join)
words = st.text(string.ascii_letters, min_size=1, max_size=8)
bodies = st.builds("{}{}{}".format, anything, words, anything).map(
    lambda text: text.replace("<", "(").replace("\\", "/")
)

# --- parser


@given(completions, st.sampled_from(list(TAGS)))
def test_every_part_that_the_parser_returns_stands_in_the_completion(text: str, thinking: Any) -> None:
    thought = parse(text, thinking)
    for part in (thought.trigger, thought.feeling, thought.conclusion, thought.answer):
        assert part is None or (part in text and part == part.strip())


@given(completions)
def test_a_completion_without_a_problem_has_every_part(text: str) -> None:
    thought = parse(text)
    parts = (thought.trigger, thought.feeling, thought.conclusion, thought.answer)
    assert thought.problem is not None or None not in parts


@given(st.tuples(bodies, bodies, bodies), words, st.text(string.whitespace, max_size=3))
def test_what_is_written_in_the_grammar_is_read_back(steps: Any, answer: Any, space: Any) -> None:
    text = "".join(f"{space}<step{n}>{body}</step{n}>" for n, body in enumerate(steps, start=1))
    thought = parse(f"{text}{space}\\boxed{{{answer}}}{space}")
    assert (thought.trigger, thought.feeling, thought.conclusion) == tuple(body.strip() for body in steps)
    assert (thought.answer, thought.problem) == (answer, None)


CLAIMS = {"positive": "negative", "negative": "positive", "high": "low", "low": "high"}


@given(st.lists(st.sampled_from(list(CLAIMS)) | words, max_size=6))
def test_a_conclusion_of_the_opposite_words_claims_the_opposite_signs(told: Any) -> None:
    polarity, arousal = read_conclusion(", ".join(told))
    opposite = read_conclusion(", ".join(CLAIMS.get(word.lower(), word) for word in told))
    assert opposite == tuple(sign and -sign for sign in (polarity, arousal))


# --- stated confidence

chances = st.floats(0, 1, allow_subnormal=False)


@given(chances, chances)
def test_stating_the_chance_of_being_right_earns_most_on_average(chance: float, stated: float) -> None:
    def expected(said: float) -> float:
        return chance * confidence_value(said, True) + (1 - chance) * confidence_value(said, False)

    # p (1 - (c - 1)^2) + (1 - p) (1 - c^2) = 1 - p (1 - p) - (c - p)^2
    assert expected(chance) - expected(stated) == pytest.approx((stated - chance) ** 2, abs=1e-12)


@given(chances, chances, st.floats(0, 0.45), st.floats(0, 0.1))
def test_whoever_is_more_often_right_and_says_so_never_earns_less(
    chance: float, better: float, confidence: float, format: float
) -> None:
    try:
        paid = RewardSettings(reflective=0, confidence=confidence, format=format)
    except UserError:
        return
    accuracy = 1 - paid.confidence - paid.format

    def expected(right: float) -> float:
        return right * accuracy + paid.confidence * (1 - right * (1 - right))

    low, high = sorted((chance, better))
    assert expected(low) <= expected(high) + 1e-12


# --- label normaliser

label_texts = st.lists(
    st.sampled_from(["joy", "Sadness", "fear", "not ", "<b>", "</b>", "*", "'", "\u200b", " ", "\uff4a\uff4f\uff59"])
    | anything,
    max_size=6,
).map("".join)


@given(label_texts)
def test_a_normal_form_is_its_own_normal_form(text: str) -> None:
    assert normalise(normalise(text)) == normalise(text)


@given(st.lists(anything, min_size=1, max_size=5), st.sampled_from(["", " ", "\u200b", "\t\u2060", "\ufeff"]))
def test_every_label_of_any_set_is_matched_also_among_blanks_and_invisible_characters(
    labels: list[str], around: str
) -> None:
    try:
        label_set = LabelSet("drawn", tuple(labels))
    except UserError:
        return
    for label in labels:
        assert match(f"{around}{label}{around}", label_set) == label
        assert resolve(f"{around}{label}{around}", label_set) == label


@given(label_texts, st.sampled_from(taxonomy.BUILT_IN))
def test_every_reading_of_a_text_is_a_label_of_the_set_or_none(text: str, labels: LabelSet) -> None:
    assert {match(text, labels), affirmed(text, labels), resolve(text, labels)} <= {*labels.labels, None}
    assert match(text, labels) in (None, resolve(text, labels))


DISGUISES = {
    "capitals": str.upper,
    "wide letters": lambda word: "".join(chr(ord(letter) + 0xFEE0) for letter in word),
    "zero-width spaces": "\u200b".join,
    "in mark-up": "<b>{}</b>".format,
    "none": str,
}


@given(st.data(), st.sampled_from(taxonomy.BUILT_IN), st.sampled_from(sorted(DISGUISES)), label_texts)
def test_a_masked_text_names_no_label_in_any_disguise(data: Any, labels: LabelSet, disguise: Any, text: str) -> None:
    label = DISGUISES[disguise](data.draw(st.sampled_from(labels.labels)))
    for told in (label, f"{text} {label}", text):
        assert affirmed(mask(told, labels), labels) is None


# --- recipes


def keys_of(schema: Any) -> Any:
    """Names of every setting in the recipe's schema, at any depth."""
    blocks = [schema, *schema["$defs"].values()]
    return sorted({name for block in blocks for name in block.get("properties", {})})


KEYS = keys_of(Recipe.model_json_schema())
scalars = st.none() | st.booleans() | st.integers() | st.floats() | anything | st.dates()
values = st.recursive(
    scalars,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from(KEYS) | scalars, inner, max_size=4),
    max_leaves=8,
)


def valid() -> dict[str, Any]:
    return {"output_dir": "runs/a", "model": {"path": "embedded"}, "data": {"train": "photos"}}


@given(st.dictionaries(st.sampled_from([*Recipe.model_fields]) | scalars, values, max_size=5), st.booleans())
def test_any_mapping_is_a_recipe_or_refused_in_words(content: Any, complete: Any) -> None:
    with suppress(UserError):
        assert isinstance(build_recipe(valid() | content if complete else content, [], "drawn.yaml"), Recipe)


YAML_PARTS = [
    "seed: ",
    "model: ",
    "- ",
    "\n",
    "  ",
    "{",
    "}",
    "[",
    "]",
    "&a ",
    "*a",
    "!!int ",
    "2026-13-01",
    "0b_",
    "'",
    "9" * 5000,
]
YAML = st.lists(st.sampled_from(YAML_PARTS) | anything, max_size=8).map("".join)


@given(st.sampled_from(["seed", "grpo.beta", "reward", "judge.endpoint.model", "data.train"]) | anything, YAML)
def test_any_override_is_taken_or_refused_in_words(key: Any, value: Any) -> None:
    with suppress(UserError):
        assert isinstance(build_recipe(valid(), [f"{key}={value}"], "drawn.yaml"), Recipe)


@given(YAML)
def test_any_file_that_names_no_output_is_refused_in_words(text: str) -> None:
    with tempfile.TemporaryDirectory() as scratch:
        path = Path(scratch) / "drawn.yaml"
        path.write_bytes(text.encode(errors="surrogatepass"))
        with pytest.raises(UserError):
            load_recipe(path)


shares = st.floats(0, 0.3)
recipes = st.fixed_dictionaries(
    {
        "output_dir": words,
        "seed": st.integers(0, 2**32 - 1),
        "model": st.fixed_dictionaries(
            {"path": anything, "freeze": st.lists(st.sampled_from(["vision", "projector"]), unique=True)}
        ),
        "data": st.fixed_dictionaries({"train": words | st.lists(anything, min_size=1, max_size=3)}),
        "reward": st.fixed_dictionaries({"reflective": shares, "format": shares, "soft": st.booleans()}),
    },
    optional={
        "cold_start": st.fixed_dictionaries({"learning_rate": st.floats(1e-9, 1), "samples": st.none() | st.just(3)}),
        "judge": st.fixed_dictionaries({"model": st.sampled_from(["policy", "reference", "ema"])}),
        "grpo": st.dictionaries(words, st.integers(-MOST, MOST) | st.floats(-MOST, MOST) | anything, max_size=3),
        "template": anything,
    },
)


@given(recipes)
def test_a_recipe_that_is_written_and_read_is_the_same_recipe(content: Any) -> None:
    recipe = build_recipe(content, [], "drawn.yaml")
    with tempfile.TemporaryDirectory() as scratch:
        path = Path(scratch) / "drawn.yaml"
        path.write_text(yaml.safe_dump(recipe.model_dump()), encoding="utf-8")
        assert load_recipe(path) == recipe
    assert build_recipe(json.loads(json.dumps(recipe.model_dump())), [], "config.json") == recipe  # as a run keeps it


# --- importers


def check_import(name: str, source: Any, **options: Any) -> None:
    """An import is refused in words and leaves nothing, or every row of its manifest is a sample."""
    with tempfile.TemporaryDirectory() as scratch:
        out = Path(scratch) / "out"
        try:
            imported = import_data(name, str(source), out, **options)
        except UserError:
            assert not out.exists()
            return
        rows = [json.loads(line) for line in (out / "metadata.jsonl").open("rb")]
        assert sum(sum(counts.values()) for counts in imported.rows.values()) == len(rows) > 0
        ids = {row.get("id", row["file_name"]) for row in rows}
        assert len(ids) == len(rows)
        if len({row["label"] for row in rows}) > 1:  # a set of one label is refused when it is loaded
            samples = load_samples(str(out))
            assert {sample.id for sample in samples} == ids
            assert all(sample.label in sample.labels.labels for sample in samples)


@pytest.fixture(scope="module")
def pictures(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("pictures")
    for name in "abc":
        layouts.image(folder / f"{name}.png")
    return folder


COLUMNS = sorted({column for columns in FIELDS.values() for column in columns})
names = st.sampled_from(["a.png", "b.png", "./c.png", "../a.png", "a.png/", ""]) | anything
labels = st.sampled_from(["joy", "Joy", "fear", "\\boxed{awe}", "\u200b", "+"]) | anything
json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | anything | labels,
    lambda inner: st.lists(inner, max_size=2) | st.dictionaries(labels, inner, max_size=2),
    max_leaves=4,
)
rows = st.dictionaries(st.sampled_from(COLUMNS), json_values, max_size=4)
good_rows = st.fixed_dictionaries({"image": names, "label": labels})


@settings(max_examples=FILES)
@given(st.lists(st.builds(dict.__or__, rows, good_rows), min_size=1, max_size=5))
def test_a_table_of_any_rows_becomes_samples_or_is_refused(pictures: Path, drawn: Any) -> None:
    table = pictures / "rows.jsonl"
    table.write_text("".join(json.dumps(row) + "\n" for row in drawn), encoding="utf-8")
    check_import("table", table)


@given(st.lists(st.sampled_from(["file_name,label\n", "a.png,joy\n", "b.png,fear,", '"', "\0"]) | anything, max_size=9))
def test_a_table_of_any_text_becomes_samples_or_is_refused(pictures: Path, parts: Any) -> None:
    table = pictures / "rows.csv"
    table.write_bytes("".join(parts).encode(errors="surrogatepass"))
    check_import("table", table)


file_names = st.text(st.characters(exclude_characters="/\0"), min_size=1, max_size=8).filter(
    lambda name: name not in (".", "..")
)


@settings(max_examples=FILES)
@given(st.dictionaries(file_names, st.lists(file_names, max_size=3), max_size=4), st.floats(0, 1), st.booleans())
def test_folders_of_any_names_become_samples_or_are_refused(folders: Any, test_share: Any, copy: Any) -> None:
    with tempfile.TemporaryDirectory() as scratch:
        for label, pictures in folders.items():
            for name in pictures:
                path = Path(scratch) / label / f"{name}.png"
                path.parent.mkdir(exist_ok=True)
                path.touch()
        check_import("folders", scratch, test_share=test_share, copy=copy)


@pytest.fixture(scope="module")
def sources(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Path]:
    """Function that lays out a public set once."""
    root = tmp_path_factory.mktemp("sources")

    @cache
    def lay_out(name: str) -> Any:
        (root / name).mkdir()
        layouts.BUILDERS[name](root / name)
        return root / name

    return lay_out


TABLES = {
    "emoset": "train.json",
    "emotion6": "ground_truth.txt",
    "abstract": "ABSTRACT_groundTruth.csv",
    "flickr-ldl": "ground_truth.txt",
    "ferplus": "fer2013new.csv",
    "raf-db": "EmoLabel/list_patition_label.txt",
}


@settings(max_examples=FILES)
@given(
    st.sampled_from(sorted(TABLES)), st.floats(0, 1), st.integers(0, 40), anything | st.sampled_from(["\t", "1e999"])
)
def test_a_public_set_with_a_spoilt_table_becomes_samples_or_is_refused(
    sources: Callable[[str], Path], name: str, place: Any, length: Any, spoilt: Any
) -> None:
    table = sources(name) / TABLES[name]
    whole = table.read_bytes()
    start = int(place * len(whole))
    try:
        table.write_bytes(whole[:start] + spoilt.encode(errors="surrogatepass") + whole[start + length :])
        check_import(name, sources(name))
    finally:
        table.write_bytes(whole)
