"""What all hosts share: rows, settings, a judge asked about many, and that its failure is nobody's fault."""

import asyncio
import json
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from emor3.data.folders import load_samples
from emor3.errors import UserError
from emor3.hosts.rows import pack, unpack
from emor3.hosts.scoring import Batching, JudgeFailedError, Remembering, Scorer, SharedParts, build_judge
from emor3.hosts.settings import HostSettings, read_settings
from emor3.method.types import Aspect, Question, Reply
from emor3.scoring.rows import score_rows

ROW = json.dumps({"id": "a", "label": "awe", "images": ["dog.png"], "distractors": [["sea.png"], ["sky.png"]]})
OTHER = json.dumps({"id": "b", "label": "fear", "images": ["car.png"], "distractors": [["sea.png"], ["sky.png"]]})


def thought(label: str = "awe", seen: str = "A dog.") -> str:
    return f"<step1>{seen}</step1><step2>Joy.</step2><step3>Positive, high.</step3>\\boxed{{{label}}}"


class Watching:
    """Says yes on `dog.png` alone and reads awe from all; fails on descriptions of cats; notes what it is asked."""

    def __init__(self) -> None:
        self.calls: list[list[Question]] = []

    def answer(self, questions: Sequence[Question]) -> list[Reply]:
        self.calls.append(list(questions))
        return [self._reply(question) for question in questions]

    def _reply(self, question: Question) -> Reply:
        if "cat" in question.text and question.images:
            return Reply("", error="HTTP 500")
        if question.aspect is Aspect.COHERENCE:
            return Reply("awe")
        return Reply("Yes" if question.images == ("dog.png",) else "No")


def paper(judge: Any, **reward: Any) -> Scorer:
    given = {"reflective": 0.1, "format": 0.1, "soft": False, **reward}
    return Scorer(HostSettings.model_validate({"reward": given}), lambda settings: judge)


def together(batching: Batching, asked: Sequence[tuple[str, str]]) -> list[Any]:
    async def ask() -> list[Any]:
        return list(await asyncio.gather(*(batching.score(*one) for one in asked), return_exceptions=True))

    return asyncio.run(ask())


# --- single completions in batches ------------------------------------------------------------------------------------


def test_completions_asked_for_one_by_one_are_scored_in_one_batch_with_each_question_once() -> None:
    judge = Watching()
    batching = Batching(paper(Remembering(judge)))
    found = together(batching, [(ROW, thought()), (OTHER, thought("fear")), (ROW, thought("fear"))])
    # the car's description is said to fit no picture, and awe is read from its reasoning: 0.8 + 0.1
    assert [one["total"] for one in found] == pytest.approx([1.0, 0.9, 0.2])
    assert found[2] == {"total": pytest.approx(0.2), "accuracy": 0, "format": 1, "consistency": 1, "coherence": 1}
    assert len(judge.calls) == 1
    # descriptions on dog, car, sea and sky, and one reasoning, since all three are the same
    assert len(judge.calls[0]) == 5
    together(batching, [(ROW, thought())])
    assert len(judge.calls) == 1  # a frozen judge remembers


def test_a_full_batch_does_not_wait() -> None:
    batching = Batching(paper(Watching()), wait=3600, most=2)
    assert [one["total"] for one in together(batching, [(ROW, thought()), (ROW, thought("fear"))])] == [1.0, 0.2]


def test_a_judge_that_fails_raises_in_a_host_that_sees_no_group_and_names_the_sample() -> None:
    (failed, other) = together(Batching(paper(Watching())), [(ROW, thought(seen="A cat.")), (OTHER, thought())])
    assert isinstance(failed, JudgeFailedError)
    assert str(failed).startswith("the judge failed on consistency of sample a (HTTP 500): this is not the policy's")
    assert "\n" not in str(failed)
    assert other["accuracy"] == 0.0


def test_a_failure_is_not_remembered() -> None:
    judge = Watching()
    question = Question(Aspect.CONSISTENCY, "A cat?", ("Yes", "No"), ("dog.png",))
    asked = Remembering(judge)
    assert [asked.answer([question])[0].error for _ in range(2)] == ["HTTP 500"] * 2
    assert len(judge.calls) == 2


def test_an_error_in_a_batch_reaches_everyone_who_waits_for_it() -> None:
    found = together(Batching(paper(Watching())), [(ROW, thought()), ("no row", thought())])
    assert [type(one) for one in found] == [UserError, UserError]
    assert str(found[0]).startswith("row 1: expected the JSON text of a row with label, labels, images and distractors")


# --- one batch for several reward functions ---------------------------------------------------------------------------


def test_functions_of_one_batch_share_one_scoring_and_leave_out_what_the_judge_failed_on_for_the_whole_prompt() -> None:
    judge = Watching()
    shared = SharedParts(lambda: paper(judge))
    rows, texts = [ROW, ROW, OTHER], [thought(), thought(seen="A cat."), thought("fear", "A car.")]
    assert shared.values("accuracy", rows, texts) == [1, 1, 1]
    assert judge.calls == []  # what needs no judge asks none
    assert shared.values("consistency", rows, texts) == [None, None, 0.0]
    assert shared.values("coherence", rows, texts) == [1, 1, 0]
    assert len(judge.calls) == 1
    assert shared.values("consistency", [ROW], [thought()]) == [1.0]  # another batch


CONFIDENT = {"thinking": "confidence", "reward": {"reflective": 0.1, "confidence": 0.2, "contrastive": 0}}


def test_stated_confidence_is_paid_without_a_judge_where_a_host_sums_parts() -> None:
    settings = HostSettings.model_validate(CONFIDENT)
    shared = SharedParts(lambda: Scorer(settings, lambda _: pytest.fail("no judge is needed")))
    texts = [f"{thought(label)}<confidence>0.9</confidence>" for label in ("awe", "fear")] + [thought()]
    # 1 - (0.9 - 1)^2, 1 - 0.9^2, no number
    assert shared.values("confidence", [ROW] * 3, texts) == pytest.approx([0.99, 0.19, 0])
    assert shared.values("format", [ROW] * 3, texts) == [1, 1, 0]


def test_stated_confidence_is_in_the_total_of_a_host_that_takes_totals() -> None:
    settings = HostSettings.model_validate(CONFIDENT)
    batching = Batching(Scorer(settings, lambda _: Watching()))
    (found,) = together(batching, [(ROW, f"{thought()}<confidence>0.9</confidence>")])
    # 0.6 + 0.1 + 0.1 * (1 + 1) / 2 + 0.2 * 0.99
    assert found["total"] == pytest.approx(0.8 + 0.2 * 0.99)
    assert found["confidence"] == pytest.approx(0.99)


def test_a_function_of_a_part_without_a_weight_is_refused() -> None:
    with pytest.raises(UserError, match=r"the function confidence is in the trainer's list, and .* pay nothing for it"):
        SharedParts(lambda: paper(Watching(), contrastive=0)).values("confidence", [ROW], [thought()])
    with pytest.raises(UserError, match=r"the function consistency is .* pay nothing for it: give it a weight"):
        SharedParts(lambda: paper(Watching(), reflective=0)).values("consistency", [ROW], [thought()])


def test_a_data_set_without_the_column_is_refused_and_told_how_to_get_it() -> None:
    with pytest.raises(UserError, match=r"no column emor3: write it by `emor3 data export DIR OUT --for HOST`"):
        SharedParts(lambda: paper(None)).values("accuracy", None, ["x"])


# --- rows and settings ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("text", ["no json", "[1]", "{}", None, 7, "[" * 20_000])
def test_what_is_no_row_is_refused_in_one_line(text: Any) -> None:
    with pytest.raises(UserError, match=r"^row 3: expected the JSON text of a row .*, found .*`emor3 data export") as e:
        unpack(text, "row 3")
    assert "\n" not in str(e.value)
    assert len(str(e.value)) < 250


def test_a_row_that_names_no_distractors_takes_none_of_the_batch_which_a_host_cuts_as_it_likes() -> None:
    bare = {name: value for name, value in json.loads(ROW).items() if name != "distractors"}
    rows = [json.dumps(bare | {"images": [image]}) for image in ("dog.png", "sea.png", "sky.png")]
    with pytest.raises(UserError, match=r"row 0: reward.contrastive asks about 2 other images and there are 0: name"):
        paper(Watching()).score(rows, [thought()] * 3)
    assert len(paper(Watching(), contrastive=0).score(rows, [thought()] * 3)) == 3


def test_a_row_without_images_is_scored_if_nothing_is_asked_of_them_or_it_has_a_text() -> None:
    bare = {name: value for name, value in json.loads(ROW).items() if name != "images"}
    (scored,) = paper(None, reflective=0).score([json.dumps(bare)], [thought()])
    assert scored.reward.total == 1
    told = json.dumps(bare | {"text": "A dog."})
    (scored,) = paper(Watching()).score([told], [thought()])
    assert scored.sample.text == "A dog."


def test_a_row_without_image_paths_or_with_too_few_distractors_is_refused() -> None:
    for changes, complaint in (
        (
            {"images": []},
            r"row 0 \(sample a\): expected 'images', a list of image files, found \[\]: write the data by",
        ),
        ({"images": None}, r"row 0 \(sample a\): expected 'images', a list of image files, found None: write the data"),
        ({"images": [7]}, r"row 0 \(sample a\): expected 'images', a list of image files, found \[7\]: write the data"),
        ({"distractors": [["sea.png"]]}, r"row 0: reward.contrastive asks about 2 other images and there are 1"),
        ({"distractors": []}, r"row 0: reward.contrastive asks about 2 other images and there are 0: name them"),
    ):
        with pytest.raises(UserError, match=complaint):
            paper(Watching()).score([json.dumps(json.loads(ROW) | changes)], [thought()])


@pytest.mark.parametrize(
    ("content", "complaint"),
    [
        ("judge: {model: policy}", "judge.model policy: a reward in another trainer has the judges endpoint and check"),
        (
            "judge: {model: checkpoint, path: embedded, coherence: policy}",
            "judge.coherence policy: a reward in another trainer",
        ),
        ("reward: {relative: true}", "reward.relative compares the completions of a prompt"),
        ("reward: {trust: true}", "reward.trust compares the completions of a prompt"),
        ("reward: {votes: 0.1}", "reward.votes compares the completions of a prompt"),
        ("reward: {advantages: separate}", "reward.advantages separate is what a trainer makes of parts"),
        ("reward: {own: {x: {function: 'm:f', weight: 0.1}}}", "reward.own.x: parts of one's own run in score_rows"),
        ("reward: {confidence: 0.1}", "reward.confidence 0.1 pays for a stated confidence, and thinking: steps asks"),
        ("reward: {reflectiv: 0.1}", "unknown setting 'reward.reflectiv'; did you mean 'reward.reflective'"),
        ("grpo: {}", "unknown setting 'grpo'"),
    ],
)
def test_settings_that_would_be_weaker_in_a_host_are_refused(tmp_path: Path, content: str, complaint: str) -> None:
    path = tmp_path / "reward.yaml"
    path.write_text(content)
    with pytest.raises(UserError) as refused:
        read_settings(str(path), whole_groups=False)
    assert str(refused.value).startswith(f"{path}: {complaint}")


def test_votes_and_attributes_travel_in_the_row_and_are_paid_from_there(scenes: str) -> None:
    sample = replace(
        load_samples(scenes, split="train")[0], attributes={"object": ("dog", "ball"), "hue": 0.5}, distribution=None
    )
    share = dict.fromkeys(sample.labels.labels, 0.0) | {sample.label: 1.0}
    texts = [thought(sample.label), thought(sample.label), thought("no label")]
    paid = {"reflective": 0, "votes": 0.2, "attributes": 0.2}
    for votes in (share, None):
        whole = replace(sample, distribution=votes)
        found = paper(None, **paid).score([pack(whole, whole.images, [])] * 3, texts)
        expected = score_rows([whole] * 3, texts, None, paper(None, **paid).settings.reward)
        assert [one.reward for one in found] == [one.reward for one in expected]
        # step 1 names one of two words; answers as all people voted, two of three alike: (1 + 1 - 1/2) / 2
        assert [one.reward.parts["attributes"] for one in found] == [0.5] * 3
        assert [one.reward.parts["votes"] for one in found] == ([0.75, 0.75, 0] if votes else [None] * 3)


@pytest.mark.parametrize(("part", "column"), [("votes", "distribution"), ("attributes", "attributes")])
def test_a_row_that_does_not_say_what_is_paid_is_refused(part: str, column: str) -> None:
    with pytest.raises(UserError, match=rf"row 0: reward.{part} is paid by the row's '{column}', and it has none"):
        paper(None, reflective=0, **{part: 0.1}).score([ROW], [thought()])
    strange = json.dumps(json.loads(ROW) | {column: {"awe": "much", "sea": None}})
    with pytest.raises(UserError, match=r"row 0: ('distribution' must map|attribute 'sea' must be a word)"):
        paper(None, reflective=0, **{part: 0.1}).score([strange], [thought()])


def test_a_host_of_whole_batches_takes_forms_that_compare_completions(tmp_path: Path) -> None:
    path = tmp_path / "reward.yaml"
    path.write_text("reward: {relative: true}")
    assert read_settings(str(path), whole_groups=True).reward.relative


def test_the_settings_file_is_the_one_given_else_that_of_the_environment(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, weight in (("a", 0.2), ("b", 0.3)):
        (tmp_path / name).write_text(f"reward: {{format: {weight}}}")
    monkeypatch.setenv("EMOR3_REWARD", str(tmp_path / "a"))
    assert read_settings(None, whole_groups=False).reward.format == 0.2
    assert read_settings(str(tmp_path / "b"), whole_groups=False).reward.format == 0.3
    monkeypatch.setenv("EMOR3_REWARD", str(tmp_path / "absent"))
    with pytest.raises(UserError, match=r"cannot read the reward settings .*absent"):
        read_settings(None, whole_groups=False)


def test_reflection_without_a_judge_is_refused_and_without_reflection_none_is_built() -> None:
    with pytest.raises(UserError, match=r"no judge is named: name a file with a block judge .* in EMOR3_REWARD"):
        build_judge(HostSettings())
    assert build_judge(HostSettings.model_validate({"reward": {"reflective": 0}})) is None
