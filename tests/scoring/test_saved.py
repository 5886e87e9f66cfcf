import json
import re
from pathlib import Path
from typing import Any

import pytest
from PIL import Image
from typer.testing import CliRunner

from emor3.cli.main import app
from emor3.data.folders import load_samples
from emor3.errors import UserError
from emor3.method.reflection import ScriptedJudge
from emor3.method.types import Aspect, Question
from emor3.runs.score_format import RESULT as RESULT_KEYS
from emor3.runs.score_format import ROW as ROW_KEYS
from emor3.scoring.saved import score_file

GOLDEN = Path(__file__).parent / "golden" / "rewards.jsonl"
CASES = [json.loads(line) for line in GOLDEN.read_text(encoding="utf-8").splitlines()]


@pytest.fixture(scope="module")
def golden_results() -> dict[str, dict[str, Any]]:
    return {result["id"]: result for result in score_file(GOLDEN)}


@pytest.mark.parametrize("case", CASES, ids=lambda case: case["id"])
def test_a_golden_case_scores_as_expected(case: dict[str, Any], golden_results: dict[str, dict[str, Any]]) -> None:
    result = golden_results[case["id"]]
    if "error" in case["expected"]:
        assert "label" in result["error"]
        return
    for name, value in case["expected"].items():
        assert result[name] == (value if isinstance(value, dict | None) else pytest.approx(value, abs=1e-6))


GOOD = "<step1>A child alone.</step1>\n<step2>Sorrow.</step2>\n<step3>Negative, low.</step3>\n\\boxed{sadness}"
ROW = {"id": "a", "response": GOOD, "label": "sadness", "judge": {"consistency": "Yes", "coherence": "sadness"}}


def score_lines(tmp_path: Path, *lines: Any, formula: str = "paper") -> list[dict[str, Any]]:
    """Results of a file with these lines: rows as dicts, anything else as raw bytes."""
    path = tmp_path / "rows.jsonl"
    path.write_bytes(b"\n".join(json.dumps(line).encode() if isinstance(line, dict) else line for line in lines))
    return list(score_file(path, formula))


def score_one(tmp_path: Path, formula: str = "paper", **changes: Any) -> Any:
    return score_lines(tmp_path, {**ROW, **changes}, formula=formula)[0]


def test_a_result_has_every_field(tmp_path: Path) -> None:
    assert score_one(tmp_path) == {
        "id": "a",
        "format": 1.0,
        "accuracy": 1.0,
        "consistency": 1.0,
        "coherence": 1.0,
        "reflective": 1.0,
        "overall": pytest.approx(1.0),
        "asked": {"consistency": True, "coherence": True},
        "answer": "sadness",
        "problem": None,
    }


def test_a_problem_is_named_and_survives_json(tmp_path: Path) -> None:
    result = score_one(tmp_path, response=r"\boxed{sadness}")
    assert json.loads(json.dumps(result))["problem"] == "step_missing"
    assert result["asked"] == {"consistency": False, "coherence": False}


@pytest.mark.parametrize(
    ("judge", "overall"),
    [
        ({"consistency": "Yes", "coherence": "sadness"}, 1.1),
        ({"consistency": "No, but yes", "coherence": "sadness"}, 1.0),
        ({"consistency": "", "coherence": ""}, 1.0),
        ({"consistency": "是", "coherence": "sadness"}, 1.05),
        ({"consistency": "No", "coherence": "fear"}, 0.9),
    ],
)
def test_the_released_formula_pays_what_the_released_code_pays(
    tmp_path: Path, judge: dict[str, Any], overall: float
) -> None:
    # 0.8 * 1 + 0.1 * (consistency + coherence) + 0.1 * 1, half a point for a reply that cannot be read
    assert score_one(tmp_path, "released", judge=judge)["overall"] == pytest.approx(overall)


def test_weights_of_a_row_replace_the_defaults(tmp_path: Path) -> None:
    # 0.5 * 1 + 0.3 * (1 + 0) / 2 + 0.2 * 1
    judge = {"consistency": "Yes", "coherence": "fear"}
    result = score_one(tmp_path, judge=judge, weights={"reflective": 0.3, "format": 0.2})
    assert result["overall"] == pytest.approx(0.85)
    assert score_one(tmp_path, judge=judge, weights=None)["overall"] == pytest.approx(0.95)
    # 0.7 * 1 + 0.1 * 0.5 + 0.2 * 1
    assert score_one(tmp_path, judge=judge, weights={"format": 0.2})["overall"] == pytest.approx(0.95)


def test_a_row_that_asks_for_confidence_is_paid_for_it_and_one_that_does_not_is_refused(tmp_path: Path) -> None:
    # right, every reply favourable: 0.6 * 1 + 0.1 + 0.1 + 0.2 * (1 - 0.3^2)
    asked = {
        "response": f"{GOOD}<confidence>0.7</confidence>",
        "thinking": "confidence",
        "weights": {"confidence": 0.2},
    }
    result = score_one(tmp_path, **asked)
    assert (result["confidence"], result["format"]) == (pytest.approx(0.91), 1.0)
    assert result["overall"] == pytest.approx(0.8 + 0.2 * 0.91)
    result = score_one(tmp_path, **{**asked, "response": GOOD})  # no number: 0.6 + 0 + 0.1 + 0
    assert (result["confidence"], result["problem"], result["overall"]) == (0, "confidence_missing", pytest.approx(0.7))
    assert score_one(tmp_path, **{**asked, "thinking": None})["error"].startswith("reward.confidence 0.2 pays for a")
    assert "'thinking' must be one of steps, free, direct, confidence" in score_one(tmp_path, thinking="stepz")["error"]


def test_parts_are_reported_even_where_they_weigh_nothing(tmp_path: Path) -> None:
    result = score_one(tmp_path, weights={"reflective": 0, "format": 0})
    assert (result["reflective"], result["overall"]) == (1.0, 1.0)


def test_a_missing_reflection_is_an_error_unless_its_weight_is_0(tmp_path: Path) -> None:
    assert "never run" in score_one(tmp_path, judge=None)["error"]
    assert "never run" in score_one(tmp_path, judge={"consistency": "Yes"})["error"]
    assert "never run" in score_one(tmp_path, judge={"consistency": "Yes", "coherence": None})["error"]
    result = score_one(tmp_path, judge=None, weights={"reflective": 0})
    assert (result["consistency"], result["reflective"], result["overall"]) == (None, None, pytest.approx(1.0))
    assert result["asked"] == {"consistency": False, "coherence": False}


def test_a_question_that_could_not_be_asked_needs_no_saved_reply(tmp_path: Path) -> None:
    # step2 is missing: 0.8 + 0.1 * (1 + 0) / 2 + 0
    response = r"<step1>A child.</step1>\boxed{sadness}"
    result = score_one(tmp_path, response=response, judge={"consistency": "Yes", "coherence": None})
    assert result["asked"] == {"consistency": True, "coherence": False}
    assert (result["coherence"], result["overall"]) == (0.0, pytest.approx(0.85))


@pytest.mark.parametrize(
    ("changes", "complaint"),
    [
        ({"response": None}, "'response' must be a string"),
        ({"response": ["x"]}, "'response' must be a string"),
        ({"label": "joy"}, "'label' must be one of amusement"),
        ({"label": None}, "'label' must be"),
        ({"label": ""}, "'label' must be"),
        ({"label": "sadness, fear"}, "'label' must be"),
        ({"labels": []}, "no labels"),
        ({"labels": ["sadness", "sadness"]}, "same label"),
        ({"labels": ["sadness", "Sadness."]}, "same label"),
        ({"labels": ["sadness", " "]}, "not a label"),
        ({"labels": ["sadness", 7]}, "'labels' must be a list of strings"),
        ({"labels": "sadness"}, "'labels' must be a list of strings"),
        ({"labels": {"sadness": 1}}, "'labels' must be a list of strings"),
        ({"judge": "Yes"}, "'judge' must hold"),
        ({"judge": {"consistency": True, "coherence": "sadness"}}, "reply on consistency must be a string"),
        ({"weights": [0.1, 0.1]}, "'weights' may hold"),
        ({"weights": {"reflection": 0.1}}, "'weights' may hold"),
        ({"weights": {"reflective": "0.1"}}, "must be a number"),
        ({"weights": {"reflective": True}}, "must be a number"),
        ({"weights": {"reflective": None}}, "must be a number"),
        ({"weights": {"reflective": -0.1}}, "from 0 to 1"),
        ({"weights": {"reflective": 10**400}}, "from 0 to 1"),
        ({"weights": {"reflective": float("nan")}}, "from 0 to 1"),
        ({"weights": {"reflective": 0.9, "format": 0.9}}, "exceed 1"),
    ],
)
def test_a_row_that_cannot_be_scored_keeps_its_id_and_says_why(
    tmp_path: Path, changes: dict[str, Any], complaint: str
) -> None:
    result = score_one(tmp_path, **changes)
    assert result.keys() == {"id", "error"}
    assert result["id"] == "a"
    assert complaint in result["error"]
    assert "\n" not in result["error"]


@pytest.mark.parametrize("key", ["response", "label"])
def test_a_missing_key_is_named(tmp_path: Path, key: str) -> None:
    row = {name: value for name, value in ROW.items() if name != key}
    assert f"'{key}'" in score_lines(tmp_path, row)[0]["error"]


def test_bad_lines_do_not_stop_the_others_and_the_order_is_kept(tmp_path: Path) -> None:
    lines = [
        {**ROW, "id": 1},
        b'{"id": 2, "response": ',
        b"[1, 2]",
        b"null",
        b'{"id": 3, "response": "\xff"}',
        b"[" * 100_000,
        b'{"id": ' + b"9" * 5000 + b"}",
        {"response": GOOD},
        {**ROW, "id": [4]},
        b"",
        b"  \r",
        {**ROW, "id": 5},
    ]
    results = score_lines(tmp_path, *lines)
    assert [result["id"] for result in results] == [1, *[None] * 8, 5]
    assert ["error" in result for result in results] == [False, *[True] * 8, False]
    assert "line 2 is not JSON" in results[1]["error"]


def test_a_byte_order_mark_windows_line_ends_and_unicode_separators_are_fine(tmp_path: Path) -> None:
    row = json.dumps({**ROW, "id": "line\u2028separator"}, ensure_ascii=False).encode()
    results = score_lines(tmp_path, b"\xef\xbb\xbf" + row + b"\r", row + b"\r")
    assert [result["id"] for result in results] == ["line\u2028separator"] * 2


def test_labels_of_a_row_may_be_of_any_script_and_are_compared_folded(tmp_path: Path) -> None:
    changes = {
        "labels": ["悲伤", "Fear / Anger"],
        "label": "fear / anger",
        "response": GOOD.replace("sadness", "FEAR / ANGER"),
    }
    result = score_one(tmp_path, **changes, judge={"consistency": "Yes", "coherence": "“Fear / anger”."})
    assert result["overall"] == pytest.approx(1.0)


def test_lone_surrogates_survive(tmp_path: Path) -> None:
    result = score_one(tmp_path, id="\ud800", response="\ud800" + GOOD)
    assert result["problem"] == "text_outside_steps"
    assert json.loads(json.dumps(result))["id"] == "\ud800"


def test_results_come_one_by_one(tmp_path: Path) -> None:
    path = tmp_path / "rows.jsonl"
    path.write_text("\n".join(json.dumps(ROW) for _ in range(3)), encoding="utf-8")
    results = score_file(path)
    assert next(results)["id"] == "a"


def test_a_file_that_cannot_be_read_is_one_clear_line(tmp_path: Path) -> None:
    for path in (tmp_path / "missing.jsonl", tmp_path):
        with pytest.raises(UserError, match=f"cannot read {path}"):
            next(score_file(path))


def test_the_command_prints_json_lines_and_exits_with_1_only_if_a_row_failed(tmp_path: Path) -> None:
    path = tmp_path / "rows.jsonl"
    path.write_text(json.dumps(ROW), encoding="utf-8")
    good = CliRunner().invoke(app, ["score", str(path), "--formula", "released"])
    assert (good.exit_code, json.loads(good.stdout)["overall"]) == (0, pytest.approx(1.1))
    path.write_text(json.dumps({**ROW, "id": "\ud800", "label": 7}) + "\n" + json.dumps(ROW), encoding="utf-8")
    mixed = CliRunner().invoke(app, ["score", str(path)])
    assert mixed.exit_code == 1
    assert [json.loads(line)["id"] for line in mixed.stdout.splitlines()] == ["\ud800", "a"]


# --- with a judge that is asked --------------------------------------------------------------------------------------


def with_image(tmp_path: Path, **changes: Any) -> dict[str, Any]:
    Image.new("RGB", (32, 32)).save(tmp_path / "a.png")
    return {**ROW, "judge": None, "images": ["a.png"], **changes}


def score_asking(tmp_path: Path, row: dict[str, Any]) -> tuple[Any, ...]:
    path = tmp_path / "rows.jsonl"
    path.write_text(json.dumps(row))
    asked = []

    def reply(question: Question) -> Any:
        asked.append(question)
        return "No" if question.aspect is Aspect.CONSISTENCY else "sadness"

    return next(score_file(path, judge=ScriptedJudge(reply))), asked


def test_a_judge_is_asked_about_a_row_without_saved_replies_and_its_replies_are_told(tmp_path: Path) -> None:
    result, asked = score_asking(tmp_path, with_image(tmp_path, text="A caption."))
    assert (result["consistency"], result["coherence"]) == (0, 1)
    assert result["judge"] == {"consistency": "No", "coherence": "sadness"}
    assert [question.images for question in asked] == [(str(tmp_path / "a.png"),), ()]
    assert "A caption." in asked[0].text
    again = score_one(tmp_path, judge=result["judge"])
    assert again["overall"] == result["overall"]


def test_a_judge_is_told_that_the_images_of_a_row_are_frames(tmp_path: Path) -> None:
    _, asked = score_asking(tmp_path, with_image(tmp_path, images=["a.png", "a.png"], clip="a.mp4"))
    assert asked[0].text.startswith("The images are frames of one video, in order of time.\nDoes the text describe the")
    result, _ = score_asking(tmp_path, with_image(tmp_path, clip=["a.mp4"]))
    assert "'clip' must be the name of the video" in result["error"]


def test_saved_replies_are_taken_before_the_judge_is_asked(tmp_path: Path) -> None:
    result, asked = score_asking(tmp_path, ROW)
    assert (result["consistency"], asked) == (1, [])


@pytest.mark.parametrize("images", [None, "a.png", [], [1], ["gone.png"]])
def test_a_judge_needs_images_that_can_be_opened_and_the_row_says_so(tmp_path: Path, images: Any) -> None:
    result, _ = score_asking(tmp_path, with_image(tmp_path, images=images))
    assert result.keys() == {"id", "error"}
    assert "image" in result["error"]


def test_a_checkpoint_judges_by_the_command(scenes: str, tmp_path: Path) -> None:
    sample = load_samples(scenes, split="test")[0]
    (tmp_path / "rows.jsonl").write_text(json.dumps({**ROW, "judge": None, "images": [sample.image]}))
    scored = CliRunner().invoke(app, ["score", str(tmp_path / "rows.jsonl"), "--judge", "embedded"])
    assert scored.exit_code == 0, scored.output
    assert json.loads(scored.stdout)["judge"]["consistency"] in ("Yes", "No")


def test_the_help_tells_every_key_of_a_row_and_of_a_result(tmp_path: Path) -> None:
    told = CliRunner(env={"COLUMNS": "80"}).invoke(app, ["score", "--help"]).output
    assert [key for key in (*ROW_KEYS, *RESULT_KEYS) if not re.search(rf"^  {key} ", told, re.M)] == []
    result, _ = score_asking(tmp_path, with_image(tmp_path))
    assert result.keys() | {"error", "confidence"} == RESULT_KEYS.keys()
