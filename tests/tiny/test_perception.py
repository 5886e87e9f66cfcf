"""The drawn truth of step 1, and the tables that show it."""

from dataclasses import replace

from emor3.data.folders import load_samples, resolve_folder
from emor3.method.thinking import parse
from emor3.method.types import Prediction
from emor3.tiny.folders import read_scenes
from emor3.tiny.perception import DrawnTruth
from made_up import prediction

TEST = "embedded:scenes6"
FOLDER = resolve_folder(TEST)


def described(text: str, answer: str | None = None) -> Prediction:
    """A prediction on the first test picture with that step 1."""
    sample = load_samples(TEST, split="test")[0]
    whole = f"<step1>{text}</step1><step2>Joy.</step2><step3>Positive.</step3>\\boxed{{{answer or sample.label}}}"
    return Prediction(sample, whole, parse(whole), answer or sample.label)


def names_of_the_first() -> tuple[str, str, str]:
    scene = read_scenes(FOLDER)[load_samples(TEST, split="test")[0].image]
    return scene.object, scene.face, scene.surroundings


def test_step_1_is_exact_if_it_names_each_drawn_factor_and_no_other() -> None:
    truth, (thing, face, place) = DrawnTruth([FOLDER]), names_of_the_first()
    other = "spider" if thing != "spider" else "teacup"
    assert truth.exact(described(f"A {face} face and a {thing}, {place}.")) is True
    assert truth.exact(described(f"A {face} face, {place}.")) is False
    assert truth.exact(described(f"A {face} face, a {thing} and a {other}, {place}.")) is False


def test_the_share_of_named_factors_that_are_there_skips_a_text_that_names_none() -> None:
    truth, (thing, face, _) = DrawnTruth([FOLDER]), names_of_the_first()
    other = "spider" if thing != "spider" else "teacup"
    assert truth.there(described(f"A {face} face and a {other}.")) == 0.5  # one of two
    assert truth.there(described("Something.")) is None


def test_right_for_the_right_reason_counts_right_answers_only() -> None:
    checks = DrawnTruth([FOLDER]).checks()
    right = described("Something.")
    wrong = replace(right, predicted=next(label for label in right.sample.labels.labels if label != right.sample.label))
    assert checks["step 1 exactly right, right answers"](right) is False
    assert checks["step 1 exactly right, right answers"](wrong) is None


def test_a_picture_that_nobody_drew_has_no_drawn_truth() -> None:
    assert DrawnTruth([FOLDER]).exact(prediction("joy", "joy")) is None
    assert DrawnTruth([]).checks() == {}


def test_a_picture_is_found_by_its_place_below_the_cache_which_may_have_moved() -> None:
    truth, (thing, face, place) = DrawnTruth([FOLDER]), names_of_the_first()
    here = described(f"A {face} face and a {thing}, {place}.")
    elsewhere = replace(
        here.sample, images=tuple(f"/elsewhere/{'/'.join(i.split('/')[-3:])}" for i in here.sample.images)
    )
    assert truth.exact(replace(here, sample=elsewhere)) is True
