from dataclasses import replace
from pathlib import Path
from typing import Any, get_args

import pytest

from emor3.errors import UserError
from emor3.method.labels import EKMAN6, MIKELS8, LabelSet
from emor3.method.thinking import (
    TAGS,
    Thinking,
    build_prompt,
    load_template,
    parse,
    read_conclusion,
    render,
    sample_prompt,
)
from emor3.method.types import Problem, Sample

STEPS = "<step1>A dog.</step1>\n<step2>Joy.</step2>\n<step3>Positive, high.</step3>\n"
GOOD = STEPS + r"\boxed{joy}"


def test_a_good_completion_gives_its_steps_and_answer() -> None:
    thought = parse(GOOD)
    assert (thought.trigger, thought.feeling, thought.conclusion) == ("A dog.", "Joy.", "Positive, high.")
    assert (thought.answer, thought.problem) == ("joy", None)


@pytest.mark.parametrize(
    "text",
    [
        GOOD.replace("\n", "\r\n"),
        GOOD.replace("\n", ""),
        "\n\t " + GOOD + "\n",
        GOOD + " That is all. {",
        STEPS + r"The answer is \boxed{joy}.",
        GOOD.replace("A dog.", "A dog <step4> & <STEP1> {x} \\boxed{fear}"),
        GOOD.replace("A dog.", "A dog.\n\n<b>Two</b> lines."),
    ],
)
def test_the_grammar_tolerates_white_space_inner_text_and_text_around_the_box(text: str) -> None:
    thought = parse(text)
    assert (thought.problem, thought.answer) == (None, "joy")


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("", Problem.EMPTY),
        (" \u200b\n", Problem.EMPTY),
        (r"\boxed{joy}", Problem.STEP_MISSING),
        (GOOD.replace("<step2>", "<Step2>"), Problem.STEP_MISSING),
        (GOOD.replace("<step2>", "<step2 >"), Problem.STEP_MISSING),
        (GOOD.replace("<step2>", '<step2 id="x">'), Problem.STEP_MISSING),
        (GOOD.replace("</step2>", ""), Problem.STEP_MISSING),
        (GOOD.replace("<step2>Joy.</step2>", "</step2>Joy.<step2>"), Problem.STEP_MISSING),
        (GOOD + "<step1>", Problem.STEP_REPEATED),
        (GOOD.replace("Joy.", "Joy.</step2>"), Problem.STEP_REPEATED),
        (GOOD + GOOD, Problem.STEP_REPEATED),
        (GOOD.replace("Joy.", ""), Problem.STEP_BLANK),
        (GOOD.replace("Joy.", "\r\n\u00a0\u200b"), Problem.STEP_BLANK),
        ("<step2>Joy.</step2><step1>A dog.</step1><step3>Pos.</step3>\\boxed{joy}", Problem.STEPS_OUT_OF_ORDER),
        ("<step1>A <step2>Joy.</step2></step1><step3>Pos.</step3>\\boxed{joy}", Problem.STEPS_OUT_OF_ORDER),
        ("<step1>A <step2>b</step1> c</step2><step3>Pos.</step3>\\boxed{joy}", Problem.STEPS_OUT_OF_ORDER),
        ("Well. " + GOOD, Problem.TEXT_OUTSIDE_STEPS),
        (GOOD.replace("\n<step3>", "so <step3>"), Problem.TEXT_OUTSIDE_STEPS),
        (GOOD.replace("\n<step3>", "\\boxed{joy}<step3>"), Problem.TEXT_OUTSIDE_STEPS),
        ("\ufeff" + GOOD, Problem.TEXT_OUTSIDE_STEPS),
        (STEPS, Problem.ANSWER_MISSING),
        (STEPS + "joy", Problem.ANSWER_MISSING),
        (STEPS + r"\boxed{joy", Problem.ANSWER_MISSING),
        (STEPS + r"\boxed{}", Problem.ANSWER_MISSING),
        (STEPS.replace("high.", r"high. \boxed{joy}"), Problem.ANSWER_BEFORE_STEPS),
        (STEPS.replace("high.", r"high. \boxed{joy}") + r"\boxed{ }", Problem.ANSWER_BEFORE_STEPS),
    ],
)
def test_each_way_to_break_the_grammar_has_its_name(text: str, problem: Problem) -> None:
    assert parse(text).problem is problem


@pytest.mark.parametrize(
    ("box", "answer"),
    [
        (r"\boxed{joy}", "joy"),
        (r"\boxed{ joy }", "joy"),
        (r"\boxed{\boxed{joy}}", "joy"),
        (r"\boxed{{{joy}}}", "joy"),
        (r"\boxed{\text{joy}}", "joy"),
        (r"\boxed{\text{ \boxed{ {\textbf{joy}} } }}", "joy"),
        (r"\boxed{$\mathrm{joy}$}", "joy"),
        (r"\boxed{\text{joy}.}", "joy"),
        (r"\boxed{joy}}}", "joy"),
        (r"}} \boxed{joy}", "joy"),
        (r"{ \boxed{joy}", "joy"),
        (r"\boxed{ \boxed{joy}", "joy"),
        (r"\boxed{joy} \boxed{fear", "joy"),
        (r"\boxed{joy} \boxed{}", "joy"),
        (r"\boxed{joy} \boxed{{ \text{} }}", "joy"),
        (r"\boxed{joy} or \boxed{fear}", "fear"),
        (r"\boxed{joy, fear}", "joy, fear"),
        (r"\boxed{\text{joy}, \text{fear}}", r"\text{joy}, \text{fear}"),
        (r"\boxed{joy \boxed{fear}}", r"joy \boxed{fear}"),
        (r"\boxed{jo{y}", None),
        (r"\boxed{}", None),
        (r"\boxed{\boxed{}}", None),
        (r"\boxed{\boxed{\boxed{}}", None),
        ("\\boxed{\u200b}", None),
        (r"\boxed joy", None),
        ("boxed{joy}", None),
        ("", None),
    ],
)
def test_the_answer_is_the_last_balanced_non_empty_box_peeled(box: str, answer: Any) -> None:
    assert parse(STEPS + box).answer == answer
    assert parse(box).answer == answer


def test_an_answer_counts_without_any_step() -> None:
    assert parse(r"joy? \boxed{joy}").answer == "joy"


@pytest.mark.parametrize(
    ("text", "usable"),
    [
        (GOOD, ("A dog.", "Joy.", "Positive, high.")),
        ("<step2>Joy.</step2>", (None, "Joy.", None)),
        ("<step2>Joy.</step2> then <step1>A dog.</step1>", ("A dog.", "Joy.", None)),
        ("<step1>One.</step1><step1>Two.</step1><step2>Joy.</step2>", (None, "Joy.", None)),
        ("<step1>One.</step1><step1>", (None, None, None)),
        ("<step1> \n</step1><step2>Joy.", (None, None, None)),
        ("</step1>A dog.<step1>", (None, None, None)),
        ("< step1>A dog.</ step1>", (None, None, None)),
    ],
)
def test_a_step_is_usable_if_its_pair_stands_once_closed_and_not_blank(text: str, usable: tuple[Any, ...]) -> None:
    thought = parse(text)
    assert (thought.trigger, thought.feeling, thought.conclusion) == usable


def test_the_prompt_holds_the_labels_of_the_samples_own_set() -> None:
    assert "contentment" in build_prompt(MIKELS8)
    assert "contentment" not in build_prompt(EKMAN6)
    assert "fear/anger" in build_prompt(LabelSet("mine", ("fear/anger", "{{ joy }}")))


def test_a_label_is_data_and_never_evaluated_as_a_template() -> None:
    assert "{{ 7 * 7 }}" in build_prompt(LabelSet("mine", ("{{ 7 * 7 }}", "joy")))


def test_the_prompt_asks_for_what_the_parser_reads() -> None:
    prompt = build_prompt(EKMAN6)
    for tag in ("<step1>", "</step1>", "<step2>", "</step2>", "<step3>", "</step3>", r"\boxed{"):
        assert prompt.count(tag) == 1


def test_the_example_in_the_prompt_keeps_the_grammar() -> None:
    prompt = build_prompt(EKMAN6)
    assert parse(prompt[prompt.index("<step1>") :]).problem is None


def test_a_user_may_point_to_a_template_file(tmp_path: Path) -> None:
    path = tmp_path / "mine.txt"
    path.write_text("Choose: {{ labels }}!\n", encoding="utf-8")
    assert build_prompt(EKMAN6, str(path)) == "Choose: anger, disgust, fear, joy, sadness, surprise!"


def test_a_template_that_is_missing_binary_or_broken_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="neither a shipped template nor a file"):
        load_template("nonesuch")
    (tmp_path / "binary.txt").write_bytes(b"\xff\xfe\x00")
    with pytest.raises(UserError, match="neither a shipped template nor a file"):
        load_template(str(tmp_path / "binary.txt"))
    with pytest.raises(UserError, match="cannot be filled"):
        render("{{ labels", labels="a")
    with pytest.raises(UserError, match=r"cannot be filled.*emotion"):
        render("{{ emotion }}", labels="a")


def test_free_and_no_thinking_have_their_own_grammar_and_the_same_answer_box() -> None:
    free = parse(r"<think>A dog, so joy.</think> \boxed{joy}", "free")
    assert (free.problem, free.answer, free.trigger, free.feeling) == (None, "joy", "A dog, so joy.", "")
    assert parse(r"\boxed{joy}", "free").problem is Problem.STEP_MISSING
    assert parse(r"<think>\boxed{joy}</think>", "free").problem is Problem.ANSWER_BEFORE_STEPS
    assert parse(r"It is \boxed{joy}.", "direct").problem is None
    assert parse("joy", "direct").problem is Problem.ANSWER_MISSING


@pytest.mark.parametrize("thinking", get_args(Thinking))
def test_the_example_in_each_shipped_prompt_keeps_its_grammar(thinking: Any) -> None:
    prompt = build_prompt(LabelSet("two", ("joy", "fear")), thinking)
    tags = [f"<{tag}>" for tag in TAGS[thinking]]
    start = prompt.index(tags[0]) if tags else prompt.index("\\boxed")
    assert parse(prompt[start:], thinking).problem is None


@pytest.mark.parametrize(
    ("text", "signs"),
    [
        ("Positive, high arousal.", (1, 1)),
        ("negative and LOW", (-1, -1)),
        ("Highly positive", (1, None)),
        ("neither positive nor negative, low", (None, -1)),
        ("", (None, None)),
        (None, (None, None)),
    ],
)
def test_a_conclusion_claims_a_sign_only_where_it_names_one_alone(text: str, signs: tuple[Any, ...]) -> None:
    assert read_conclusion(text) == signs


def test_the_prompt_for_one_image_reads_as_ever() -> None:
    assert build_prompt(LabelSet("two", ("joy", "fear"))) == (
        "Look at the image. Which emotion would it evoke in a human viewer? Choose one of: joy, fear.\n"
        "Think in three steps, then answer:\n"
        "<step1>what in the image, an action, a face or the surroundings, could trigger an emotion</step1>\n"
        "<step2>how a human viewer would feel about it</step2>\n"
        "<step3>positive or negative, high or low arousal</step3>\n"
        "\\boxed{one emotion}"
    )
    assert build_prompt(LabelSet("two", ("joy", "fear")), "direct") == (
        "Look at the image. Which emotion would it evoke in a human viewer? Choose one of: joy, fear.\n"
        "Answer at once: \\boxed{one emotion}"
    )
    assert build_prompt(LabelSet("two", ("joy", "fear")), "free") == (
        "Look at the image. Which emotion would it evoke in a human viewer? Choose one of: joy, fear.\n"
        "Think first, then answer:\n<think>your reasoning</think>\n\\boxed{one emotion}"
    )


@pytest.mark.parametrize(
    ("images", "text", "begins"),
    [
        (2, None, "Look at the images. Which emotion would they evoke"),
        (0, "Fog.", "Text: Fog.\nLook at the text. Which emotion would it evoke"),
        (1, "Fog.", "Text: Fog.\nLook at the image and the text. Which emotion would they evoke"),
        (3, "<|image_pad|>", "Text: < |image_pad| >\nLook at the images and the text. Which emotion would they evoke"),
    ],
)
def test_the_prompt_says_what_is_shown_and_holds_the_text(images: int, text: str, begins: str) -> None:
    assert build_prompt(EKMAN6, "steps", images, text).startswith(begins)


FRAMES = "The images are frames of one video, in order of time.\n"


@pytest.mark.parametrize(
    ("text", "begins"),
    [
        (None, f"{FRAMES}Look at the video. Which emotion would it evoke in a human viewer?"),
        ("Fog.", f"{FRAMES}Text: Fog.\nLook at the video and the text. Which emotion would they evoke"),
    ],
)
@pytest.mark.parametrize("template", ["steps", "free", "direct", "confidence", "ratings"])
def test_frames_are_told_to_be_those_of_one_video(template: str, text: str | None, begins: str) -> None:
    clip = Sample("s", ("0.jpg", "1.jpg"), "joy", EKMAN6, text=text, clip="a.mp4")
    prompt = sample_prompt(clip, template)
    assert prompt.startswith(begins)
    assert "image" not in prompt.removeprefix(FRAMES)
    assert "a.mp4" not in prompt
    images = replace(clip, clip=None)
    assert sample_prompt(images, template) == build_prompt(EKMAN6, template, 2, text)
    assert "video" not in sample_prompt(images, template)


def test_one_frame_is_an_image() -> None:
    frame = Sample("s", ("0.jpg",), "joy", EKMAN6, clip="a.mp4")
    assert sample_prompt(frame, "steps") == build_prompt(EKMAN6)


def test_a_template_of_ones_own_need_not_know_of_texts(tmp_path: Path) -> None:
    path = tmp_path / "mine.txt"
    path.write_text("Choose: {{ labels }}!\n", encoding="utf-8")
    assert build_prompt(LabelSet("two", ("joy", "fear")), str(path), 0, "{{ 7 * 7 }}") == (
        "Text: {{ 7 * 7 }}\nChoose: joy, fear!"
    )
