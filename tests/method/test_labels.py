# ruff: noqa: RUF001 (look-alike letters are what is tested)
import random
import unicodedata
from pathlib import Path
from typing import Any

import pytest

from emor3.errors import UserError
from emor3.method.labels import (
    BUILT_IN,
    EKMAN6,
    EKMAN7,
    LABEL_SETS,
    MIKELS8,
    PLUTCHIK8,
    SENTIMENT3,
    WEBEMO2,
    WEBEMO7,
    WEBEMO25,
    LabelSet,
    affirmed,
    fold,
    get_label_set,
    label_set_from,
    match,
    normalise,
    read_label_set,
    resolve,
)


def labelled(*labels: str) -> LabelSet:
    return LabelSet("test", labels)


def test_the_built_in_sets_have_their_published_sizes() -> None:
    assert [len(labels.labels) for labels in BUILT_IN] == [8, 6, 7, 8, 25, 7, 2, 3]
    assert (*EKMAN6.labels, "neutral") == EKMAN7.labels
    assert set(PLUTCHIK8.labels) - set(EKMAN6.labels) == {"trust", "anticipation"}


def test_mikels8_is_half_positive_and_half_negative() -> None:
    positive = [label for label, sign in MIKELS8.polarity.items() if sign > 0]
    assert positive == ["amusement", "awe", "contentment", "excitement"]
    assert len(MIKELS8.polarity) == 8


def test_surprise_and_awe_have_no_sign_where_word_norms_misplace_them() -> None:
    assert "surprise" not in EKMAN6.polarity
    assert "surprise" not in PLUTCHIK8.arousal
    assert "awe" not in MIKELS8.arousal


@pytest.mark.parametrize(
    ("written", "label"),
    [
        ("sadness", "sadness"),
        ("  SADNESS\r\n", "sadness"),
        ("sadness.", "sadness"),
        ("«sadness»!", "sadness"),
        ("**sadness**", "sadness"),
        ("__`sadness`__", "sadness"),
        ("$sadness$", "sadness"),
        ("<b>Sadness</b>", "sadness"),
        ('**<span class="x">sadness</span>**', "sadness"),
        ("<sadness>", "sadness"),
        ("ｓａｄｎｅｓｓ\u200b", "sadness"),
        ("\ufeffsad\u00adness\u2060", "sadness"),
        ("\u202esadness\u202c", "sadness"),
        ("sadness\u3000", "sadness"),
        ("sadness\ufe0f", "sadness"),
        ("sad ness", None),
        ("sorrow", None),
        ("sadness, fear", None),
        ("sadness fear", None),
        ("sadness <fear>", None),
        ("not sadness", None),
        ("sadness 2", None),
        ("", None),
        ("...", None),
    ],
)
def test_strict_match_folds_form_and_never_meaning(written: str, label: Any) -> None:
    assert match(written, MIKELS8) == label


def test_match_spells_the_label_as_the_set_does() -> None:
    assert match("FEAR / anger", labelled("Fear / Anger", "Joy")) == "Fear / Anger"


@pytest.mark.parametrize("label", ["fear/anger", "high arousal, negative", "悲伤", "грусть", "دُكھ", "डर", "😢", "c#"])
def test_a_label_of_any_script_with_spaces_slashes_or_signs_matches_itself(label: str) -> None:
    labels = labelled(label, "joy")
    assert match(f" *{label}*. ", labels) == label
    assert affirmed(f"It is {label}.", labels) == label


def test_labels_of_nothing_but_punctuation_are_told_apart() -> None:
    labels = labelled("+", "-")
    assert [match(" + ", labels), match("-", labels), match("*", labels)] == ["+", "-", None]
    assert affirmed("It is -", labels) == "-"


def test_inner_text_is_never_rewritten() -> None:
    assert normalise("fear/anger") != normalise("fear / anger")
    assert normalise("self-pity") != normalise("self pity")


def test_composed_and_decomposed_spellings_are_one_label() -> None:
    assert match(unicodedata.normalize("NFD", "Überraschung"), labelled("überraschung", "x")) == "überraschung"
    assert match("STRASSE", labelled("straße", "x")) == "straße"


def test_normalising_twice_changes_nothing() -> None:
    draw = random.Random(0)
    letters = "aB ſİßẞ\u200b\u0301\u0323*_<b></b>.,$()ﬁ①ｓ你'\u00a0\t\ud800"
    for _ in range(5000):
        text = "".join(draw.choice(letters) for _ in range(draw.randrange(12)))
        assert normalise(normalise(text)) == normalise(text)


@pytest.mark.parametrize(
    ("reply", "label"),
    [
        ("The emotion is sadness.", "sadness"),
        ("Sadness\nSADNESS", "sadness"),
        ("**Sadness**", "sadness"),
        ("_sadness_", "sadness"),
        ("\\boxed{sadness}", "sadness"),
        ("sadness or fear", None),
        ("sadness/fear", None),
        ("sadness, not fear", None),
        ("not sadness", None),
        ("there is no sadness", None),
        ("it isn't sadness", None),
        ("sadnesses", None),
        ("fearful", None),
        ("sad", None),
        ("", None),
    ],
)
def test_a_reply_affirms_the_one_label_it_names(reply: str, label: Any) -> None:
    assert affirmed(reply, MIKELS8) == label


def test_a_label_inside_a_longer_label_is_not_named() -> None:
    labels = labelled("joy", "great joy", "joy of life", "fear")
    assert affirmed("It is great joy.", labels) == "great joy"
    assert affirmed("It is joy!", labels) == "joy"
    assert affirmed("joy of lifelong friends", labels) == "joy"
    assert affirmed("joy and great joy", labels) is None
    assert affirmed("great joy of life", labels) is None


def test_a_label_that_is_itself_a_negation_can_be_named() -> None:
    labels = labelled("happy", "not happy")
    assert affirmed("They look not happy", labels) == "not happy"
    assert affirmed("They look happy", labels) == "happy"


def test_scripts_without_spaces_have_a_word_edge_anywhere_and_combining_vowels_belong_to_the_word() -> None:
    assert affirmed("这种情绪是悲伤。", labelled("悲伤", "快乐")) == "悲伤"
    assert affirmed("डरपोक", labelled("डर", "joy")) is None
    assert affirmed("यह डर है", labelled("डर", "joy")) == "डर"


@pytest.mark.parametrize(
    ("answer", "mikels", "ekman"),
    [
        ("amazed", "awe", "surprise"),
        ("happy", None, "joy"),
        ("very scared", "fear", "fear"),
        ("fearful", "fear", "fear"),
        ("Excited!", "excitement", None),
        ("a feeling of sadness", "sadness", "sadness"),
        ("unhappy", "sadness", "sadness"),
        ("not fear", None, None),
        ("without fear", None, None),
        ("doesn't feel happy", None, None),
        ("fearless", None, None),
        ("sad and angry", None, None),
        ("nothing", None, None),
        ("", None, None),
    ],
)
def test_lenient_reading_depends_on_the_set_and_never_falls_back(answer: str, mikels: Any, ekman: Any) -> None:
    assert resolve(answer, MIKELS8) == mikels
    assert resolve(answer, EKMAN6) == ekman


@pytest.mark.parametrize("labels", BUILT_IN, ids=lambda labels: labels.name)
def test_every_label_reads_as_itself(labels: LabelSet) -> None:
    for label in labels.labels:
        assert match(label, labels) == affirmed(label, labels) == resolve(label, labels) == label


def test_webemo_folds_25_to_7_to_2() -> None:
    assert fold("irritability", WEBEMO25, WEBEMO7) == "anger"
    assert fold("irritability", WEBEMO25, WEBEMO2) == "negative"
    assert fold("surprise", WEBEMO7, WEBEMO2) == "positive"
    assert fold("joy", WEBEMO7, WEBEMO7) == "joy"
    assert {fold(label, WEBEMO25, WEBEMO7) for label in WEBEMO25.labels} == set(WEBEMO7.labels)


def test_webemo_signs_agree_with_the_fold() -> None:
    assert len(WEBEMO25.polarity) == 25
    for label in WEBEMO25.labels:
        assert WEBEMO25.polarity[label] == WEBEMO7.polarity[fold(label, WEBEMO25, WEBEMO7)]


def test_the_misspellings_of_webemo_are_known() -> None:
    assert resolve("cheerfullness", WEBEMO25) == "cheerfulness"
    assert resolve("irritabilty", WEBEMO25) == "irritability"


def test_folding_where_no_hierarchy_leads_is_refused() -> None:
    with pytest.raises(UserError, match="does not fold"):
        fold("joy", EKMAN6, WEBEMO2)
    with pytest.raises(UserError, match="not in the set"):
        fold("awe", WEBEMO7, WEBEMO2)


def test_a_built_in_set_is_found_by_name_and_a_near_miss_is_named() -> None:
    assert get_label_set("sentiment3") is SENTIMENT3
    with pytest.raises(UserError, match="did you mean 'mikels8'"):
        get_label_set("Mikels-8")


def test_a_users_set_may_carry_signs_and_aliases() -> None:
    values = {"labels": ["calm", "tense "], "polarity": {"calm": 1}, "aliases": {"relaxed": "calm"}}
    labels = label_set_from(values, "mine")
    assert labels.labels == ("calm", "tense")
    assert resolve("relaxed", labels) == "calm"


@pytest.mark.parametrize(
    ("values", "complaint"),
    [
        (["joy"], "at least two"),
        ([], "at least two"),
        ("joy", "at least two"),
        (None, "at least two"),
        (["joy", "Joy."], "same label"),
        (["joy", "joy"], "same label"),
        (["joy", "  "], "not a label"),
        (["joy", 7], "not a label"),
        ({"labels": ["a", "b"], "valence": {}}, "unknown valence"),
        ({"labels": ["a", "b"], "polarity": {"c": 1}}, "polarity"),
        ({"labels": ["a", "b"], "arousal": {"a": 2}}, "arousal"),
        ({"labels": ["a", "b"], "polarity": ["a"]}, "must map"),
        ({"labels": ["a", "b"], "aliases": {"x": "c"}}, "alias"),
    ],
)
def test_a_malformed_label_set_is_refused_with_the_reason(values: Any, complaint: str) -> None:
    with pytest.raises(UserError, match=complaint):
        label_set_from(values, "mine")


@pytest.mark.parametrize("labels", BUILT_IN, ids=lambda labels: labels.name)
def test_a_built_in_set_is_a_file_as_users_write_them(labels: LabelSet, tmp_path: Path) -> None:
    shipped = LABEL_SETS / f"{labels.name}.yaml"
    own = tmp_path / f"{labels.name}.yaml"
    own.write_text(shipped.read_text("utf-8"), encoding="utf-8")
    assert read_label_set(own) == labels


def test_every_shipped_file_is_a_built_in_set() -> None:
    assert {labels.name for labels in BUILT_IN} == {path.stem for path in LABEL_SETS.glob("*.yaml")}
