"""`score_rows`: the pure core that other tools build on gives what training gives, and blames no policy for a judge."""

import json
from pathlib import Path
from typing import Any

import pytest

from emor3.data.folders import load_samples
from emor3.errors import UserError
from emor3.hosts.rows import pack, unpack
from emor3.method.labels import get_label_set
from emor3.method.reflection import ScriptedJudge
from emor3.method.rewards import failed_parts
from emor3.method.types import Aspect, Question, Reply, Rollout, Sample
from emor3.scoring.own import OwnJudge
from emor3.scoring.rows import score_rows
from emor3.training.scorer import BatchScorer
from rewards import paper_reward

CASES = [
    json.loads(line)
    for line in (Path(__file__).parent / "golden" / "rewards.jsonl").read_text(encoding="utf-8").splitlines()
]
ROW = {"label": "awe", "images": ["dog.png"]}
ALONE = paper_reward(contrastive=0)


def thought(label: str = "awe", seen: str = "A dog.") -> str:
    return f"<step1>{seen}</step1><step2>Joy.</step2><step3>Positive, high.</step3>\\boxed{{{label}}}"


def says(question: Question) -> str:
    return "Yes" if question.aspect is Aspect.CONSISTENCY else "awe"


class BlindToCats:
    """Fails on descriptions of cats, says yes to others and reads awe from all."""

    def answer(self, questions: list[Question]) -> list[Reply]:
        return [Reply("", error="HTTP 500") if "cat" in q.text and q.images else Reply(says(q)) for q in questions]


@pytest.mark.parametrize("case", CASES, ids=lambda case: case["id"])
def test_a_golden_case_comes_out_exactly(case: dict[str, Any]) -> None:
    judge = case.get("judge") and ScriptedJudge(lambda question: case["judge"][question.aspect])
    settings = paper_reward(contrastive=0, **case.get("weights") or {})
    row = {"images": ["a.png"], **case}
    if "error" in case["expected"]:
        with pytest.raises(UserError, match="row 0: 'label' must be one of"):
            score_rows([row], judge=judge, settings=settings)
        return
    (scored,) = score_rows([row], judge=judge, settings=settings)
    expected = dict(case["expected"])
    assert scored.reward.total == pytest.approx(expected.pop("overall"), abs=1e-9)
    asked = expected.pop("asked", {"consistency": False, "coherence": False})
    assert {name: bool(found and found.question) for name, found in vars(scored.reflection).items()} == asked
    assert scored.reward.parts == expected


def test_it_gives_what_training_gives_for_the_same_batch(scenes: str) -> None:
    """Groups of two on four samples: votes, forms, other images of the batch, and a judge that fails on one."""
    samples = [sample for sample in load_samples(scenes, split="train")[:4] for _ in range(2)]
    texts = [thought("awe" if row % 3 else "fear", "A cat." if row == 5 else f"A dog {row}.") for row in range(8)]
    settings = paper_reward(contrastive=2, votes=0.1, relative=True, trust=True, soft=True)
    completions = [[{"role": "assistant", "content": text}] for text in texts]
    scorer = BatchScorer("steps", settings, 2, BlindToCats)
    trained = scorer.rollouts(completions, samples, 1, lambda name, value: None)
    found = score_rows(samples, texts, BlindToCats(), settings)
    assert [one.reward for one in found] == [one.reward for one in trained]
    assert found == trained  # the questions and replies too
    assert [one.reward.parts["consistency"] is None for one in found] == [False] * 4 + [True] * 2 + [False] * 2


def test_stated_confidence_is_paid_as_training_pays_it_and_not_under_a_template_that_asks_for_none(scenes: str) -> None:
    samples = [sample for sample in load_samples(scenes, split="train")[:2] for _ in range(2)]
    texts = [f"{thought()}<confidence>{number}</confidence>" for number in ("0.2", "1", ".5", "much")]
    settings = paper_reward(reflective=0, confidence=0.3)
    scorer = BatchScorer("confidence", settings, 2, BlindToCats)
    trained = scorer.rollouts(texts, samples, 1, lambda name, value: None)
    found = score_rows(samples, texts, None, settings, thinking="confidence")
    assert found == trained
    assert [one.thought.confidence for one in found] == [0.2, 1, 0.5, None]
    with pytest.raises(UserError, match=r"reward.confidence 0.3 pays .* thinking: steps asks for none"):
        score_rows(samples, texts, None, settings)


def test_the_judge_is_called_once_with_each_question_once_and_the_order_is_kept() -> None:
    calls: list[int] = []

    class Counting:
        def answer(self, questions: list[Question]) -> list[Reply]:
            calls.append(len(questions))
            return [Reply(says(question)) for question in questions]

    found = score_rows([ROW, ROW, ROW], [thought(), thought("fear"), thought()], Counting(), ALONE)
    assert calls == [2]
    assert [one.reward.parts["accuracy"] for one in found] == [1, 0, 1]
    assert found == score_rows([ROW, ROW, ROW], [thought(), thought("fear"), thought()], Counting(), ALONE)


def test_what_the_judge_fails_on_is_left_out_for_all_completions_of_its_prompt_and_for_no_other() -> None:
    other = {**ROW, "images": ["car.png"]}
    found = score_rows([ROW, ROW, other], [thought(), thought(seen="A cat."), thought()], BlindToCats(), ALONE)
    assert [one.reward.parts["consistency"] for one in found] == [None, None, 1.0]
    # 0.8 + 0.1 + 0.05 for both of the group, so that neither gains by the failure; the other has all
    assert [one.reward.total for one in found] == pytest.approx([0.95, 0.95, 1.0])
    assert [failed_parts(one.reward, ALONE) for one in found] == [["consistency"], ["consistency"], []]


def test_a_description_is_asked_on_the_distractors_of_its_row_else_on_other_rows() -> None:
    def asked(rows: list[dict[str, Any]], count: int) -> set[tuple[str, ...]]:
        judge = ScriptedJudge(says)
        score_rows(rows, [thought()] * len(rows), judge, paper_reward(contrastive=count))
        return {question.images for question in judge.asked if question.images}

    named = {**ROW, "distractors": ["dog.png", "sea.png", ["left.png", "right.png"], "sky.png"]}
    assert asked([named], 2) == {("dog.png",), ("sea.png",), ("left.png", "right.png")}  # its own is none of them
    assert asked([ROW, {**ROW, "images": ["car.png"]}], 1) == {("dog.png",), ("car.png",)}
    assert asked([{**ROW, "images": []} | {"text": "It rains."}], 0) == set()


@pytest.mark.parametrize(
    ("changes", "settings", "complaint"),
    [
        ({}, {}, r"row 1: reward.contrastive asks about 2 other images and there are 0: name them in the row's"),
        ({"distractors": ["a.png"]}, {}, r"row 1: reward.contrastive asks about 2 other images and there are 1"),
        ({"distractors": "a.png"}, {}, r"row 1: 'distractors' must be a list, found 'a.png'"),
        ({"distractors": [7]}, {}, r"row 1: a distractor is the path of an image, or a list of paths; found 7"),
        ({"images": None}, {}, r"row 1: 'images' must be a list of image files for the judge, found None"),
        ({"images": "a.png"}, {}, r"row 1: 'images' must be a list of image files"),
        ({"label": "joy"}, {}, r"row 1: 'label' must be one of amusement"),
        ({"labels": "awe,fear"}, {}, r"row 1: 'labels' must be a list of strings"),
        ({}, {"anneal": True}, r"reward.anneal depends on the step of a training run"),
        ({}, {"placebo": True}, r"reward.placebo depends on the step of a training run"),
    ],
)
def test_what_cannot_be_scored_is_refused_in_one_line_that_names_the_row(
    changes: dict[str, Any], settings: dict[str, Any], complaint: str
) -> None:
    good = {**ROW, "distractors": ["sea.png", "sky.png"]}
    with pytest.raises(UserError, match=complaint) as refused:
        score_rows(
            [good, ROW | changes], [thought()] * 2, ScriptedJudge(says), paper_reward(**{"contrastive": 2} | settings)
        )
    assert "\n" not in str(refused.value)


def test_a_missing_judge_or_completion_is_refused() -> None:
    with pytest.raises(UserError, match="there is no judge: give one, or RewardSettings"):
        score_rows([ROW], [thought()])
    with pytest.raises(UserError, match="1 rows and 2 completions"):
        score_rows([ROW], [thought()] * 2, ScriptedJudge(says), ALONE)
    with pytest.raises(UserError, match="row 0: 'response' must be a string, found None"):
        score_rows([ROW], judge=ScriptedJudge(says), settings=ALONE)


def test_nothing_is_asked_and_no_image_needed_without_reflection() -> None:
    (found,) = score_rows([{"label": "awe", "response": thought()}], settings=paper_reward(reflective=0))
    assert found.reward.total == 1.0
    assert score_rows([], [], ScriptedJudge(says)) == []


def test_a_row_of_frames_is_asked_on_as_a_video_also_when_it_travelled_through_a_host() -> None:
    clip = Sample("s", ("0.png", "1.png"), "awe", get_label_set("mikels8"), clip="a.mp4")
    packed = unpack(pack(clip, clip.images, [["b0.png", "b1.png"]]), "row 0")
    for row in (clip, packed):
        judge = ScriptedJudge(says)
        score_rows([row], [thought()], judge, ALONE)
        assert judge.asked[0].text.startswith("The images are frames of one video, in order of time.\nDoes the text")
    with pytest.raises(UserError, match="row 0: 'clip' must be the name of the video"):
        score_rows([{**packed, "clip": 3}], [thought()], ScriptedJudge(says), ALONE)


def test_labels_may_be_a_set_or_a_list() -> None:
    rows = [{**ROW, "labels": get_label_set("mikels8")}, {**ROW, "labels": ["awe", "fear"]}]
    found = score_rows(rows, [thought()] * 2, ScriptedJudge(says), paper_reward(contrastive=0))
    assert [one.sample.labels.labels[:1] for one in found] == [("amusement",), ("awe",)]
    assert [one.reward.parts["accuracy"] for one in found] == [1.0, 1.0]


# --- judges of one's own ----------------------------------------------------------------------------------------------


class Says:
    """A judge that gives what it was told to, whatever it is asked."""

    def __init__(self, replies: Any) -> None:
        self.replies = replies

    def answer(self, questions: list[Question]) -> Any:
        if isinstance(self.replies, Exception):
            raise self.replies
        return self.replies if isinstance(self.replies, list) else [self.replies] * len(questions)


@pytest.mark.parametrize(
    ("replies", "complaint"),
    [
        (
            RuntimeError("no\nkey"),
            r":Says failed: RuntimeError: no key \(test_score_rows.py, line \d+\)",
        ),
        ([], r"test_score_rows:Says gave 0 replies to 2 questions"),
        ("Yes", r"reply 1 of 2: it must be an emor3.Reply, found 'Yes'"),
        (Reply(None), r"its text must be a string, found None"),
        (Reply("Yes", {"Yes": 1.0}), r"probabilities must hold a number from 0 to 1 for each candidate \(Yes, No"),
        (Reply("Yes", {"Yes": float("nan"), "No": 0.0}), r"probabilities must hold"),
        (Reply("Yes", [1.0]), r"probabilities must be a mapping"),
    ],
)
def test_a_judge_that_breaks_its_contract_ends_in_one_line_and_scores_nothing(replies: Any, complaint: str) -> None:
    with pytest.raises(UserError, match=complaint) as refused:
        score_rows([ROW], [thought()], Says(replies), ALONE)
    assert "\n" not in str(refused.value)


def test_a_judge_is_not_called_without_a_question() -> None:
    (found,) = score_rows([ROW], ["no steps"], Says(RuntimeError("called")), ALONE)
    assert (found.reward.parts["consistency"], failed_parts(found.reward, ALONE)) == (0.0, [])


def test_a_class_or_an_object_without_answer_is_no_judge() -> None:
    for judge in (Says, object(), None):
        with pytest.raises(UserError, match=r"a judge is an object with a method answer"):
            OwnJudge(judge)


# --- parts of one's own -----------------------------------------------------------------------------------------------


def paid(function: Any, weight: float = 0.2) -> list[Rollout]:
    own = {"brevity": {"function": "mine:brevity", "weight": weight}}
    settings = paper_reward(contrastive=0, own=own)
    texts = [thought(), thought("fear", "A very long dog.")]
    return score_rows([ROW, ROW], texts, ScriptedJudge(says), settings, own={"brevity": function})


def test_a_part_of_ones_own_is_a_part_like_any_other_with_its_weight_from_accuracys() -> None:
    seen: list[Rollout] = []

    def brevity(rollouts: list[Rollout]) -> list[float]:
        seen.extend(rollouts)
        return [1 / len(one.thought.trigger.split()) for one in rollouts]

    found = paid(brevity)
    assert [one.reward.parts["brevity"] for one in found] == [0.5, 0.25]  # two and four words
    # (1 - 0.1 - 0.1 - 0.2) + 0.1 + 0.1 + 0.2 * 0.5 and 0.1 + 0.1 + 0.2 * 0.25
    assert [one.reward.total for one in found] == pytest.approx([0.9, 0.25])
    assert [one.reward.parts["accuracy"] for one in seen] == [1.0, 0.0]  # it sees what the others earn
    assert [one.reflection.coherence.reply.text for one in seen] == ["awe", "awe"]


def test_numbers_of_numpy_and_torch_are_numbers() -> None:
    import numpy as np
    import torch

    for values in (np.array([0.5, 1]), torch.tensor([0.5, 1]), [np.float32(0.5), True], (0.5, 1)):
        assert [one.reward.parts["brevity"] for one in paid(lambda rollouts, given=values: given)] == [0.5, 1.0]


@pytest.mark.parametrize(
    ("give", "complaint"),
    [
        (
            lambda rollouts: 1 / 0,
            r"\(mine:brevity\) failed: ZeroDivisionError: .* \(test_score_rows.py, line",
        ),
        (lambda rollouts: 0.5, r"\(mine:brevity\) failed: TypeError"),
        (lambda rollouts: [0.5], r"reward.own.brevity \(mine:brevity\) gave 1 numbers for 2 completions"),
        (lambda rollouts: [0.5, float("nan")], r"gave nan for completion 2 of 2 \(sample 1, '<step1>A very"),
        (lambda rollouts: [float("inf"), 0], r"gave inf for completion 1 of 2 \(sample 0, '<step1>A dog"),
        (lambda rollouts: [0.5, None], r"gave None for completion 2 of 2"),
        (lambda rollouts: ["1", 1], r"gave '1' for completion 1 of 2"),
        (lambda rollouts: [1j, 1], r"gave 1j for completion 1 of 2"),
    ],
)
def test_a_part_that_is_no_finite_number_for_each_completion_is_refused_in_one_line(give: Any, complaint: str) -> None:
    with pytest.raises(UserError, match=complaint) as refused:
        paid(give)
    assert "\n" not in str(refused.value)


def test_functions_and_weights_of_parts_go_together() -> None:
    with pytest.raises(UserError, match=r"no weight for the part 'brevity': give it in reward.own.brevity"):
        score_rows([ROW], [thought()], ScriptedJudge(says), ALONE, own={"brevity": len})
    settings = paper_reward(own={"brevity": {"function": "mine:brevity", "weight": 0.1}})
    with pytest.raises(UserError, match=r"code of your own, mine:brevity, which a recipe alone never runs"):
        score_rows([ROW], [thought()], ScriptedJudge(says), settings)


def test_a_failure_of_the_judge_leaves_a_part_of_ones_own_as_it_is() -> None:
    settings = paper_reward(contrastive=0, own={"half": {"function": "mine:half", "weight": 0.2}})
    texts = [thought(), thought(seen="A cat.")]
    found = score_rows([ROW] * 2, texts, BlindToCats(), settings, own={"half": lambda rollouts: [0.5] * len(rollouts)})
    # 0.6 + 0.1 + 0.05 + 0.2 * 0.5, without consistency
    assert [one.reward.total for one in found] == pytest.approx([0.85, 0.85])
    assert [one.reward.parts["half"] for one in found] == [0.5, 0.5]
