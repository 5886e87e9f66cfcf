"""Who judges: the policy, the start model or a moving average; and a judge that cannot see is found out."""

import copy
import errno
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file
from test_train import run_of, same, weights_of, write_recipe

from emor3.data.folders import load_samples
from emor3.errors import UserError
from emor3.judges.build import JudgeByAspect
from emor3.judges.calibration import Calibration, calibrate
from emor3.judges.moving_average import MovingAverage
from emor3.method.labels import MIKELS8
from emor3.method.reflection import ScriptedJudge, coherence_question, consistency_question
from emor3.method.thinking import parse
from emor3.method.types import EmotionalThought, Question, Reply
from emor3.models.checkpoints import load
from emor3.runs.directory import latest_checkpoint
from emor3.runs.recipe import load_recipe
from emor3.training.run import train
from steps import LEARNS


class AfterStep:
    """The trainer's state after a step."""

    is_world_process_zero = True

    def __init__(self, step: Any) -> None:
        self.global_step = step


def test_the_moving_average_follows_the_policy_by_its_decay(random_checkpoint: str, tmp_path: Path) -> None:
    policy, _ = load(random_checkpoint)
    average = MovingAverage(policy, 0.75, tmp_path, None)
    start = copy.deepcopy(average.model.state_dict())
    with torch.no_grad():
        for parameter in policy.parameters():
            parameter.add_(1.0)
    average.on_step_end(None, AfterStep(1), None, policy)
    moved = average.model.state_dict()
    name = "model.language_model.norm.weight"
    assert torch.allclose(moved[name], start[name] + 0.25)  # 0.75 * w + 0.25 * (w + 1)
    assert not any(parameter.requires_grad for parameter in average.model.parameters())


def test_the_moving_average_is_saved_and_taken_up_again(random_checkpoint: str, tmp_path: Path) -> None:
    policy, _ = load(random_checkpoint)
    average = MovingAverage(policy, 0.5, tmp_path, None)
    with torch.no_grad():
        for parameter in average.model.parameters():
            parameter.mul_(2.0)
    folder = tmp_path / "checkpoint-3"
    folder.mkdir()

    average.on_save(None, AfterStep(3), None)
    again = MovingAverage(policy, 0.5, tmp_path, folder)
    assert same(dict(average.model.named_parameters()), dict(again.model.named_parameters()))


@pytest.mark.slow
def test_the_start_model_judges_in_training(tmp_path: Path, scenes: str, random_checkpoint: str) -> None:
    run = run_of(tmp_path, scenes, random_checkpoint, judge={"model": "reference"}, grpo={"beta": 0.1, "max_steps": 1})
    assert weights_of(run / "final")
    assert not (run / "checkpoints" / "checkpoint-1" / "judge_ema.safetensors").exists()


@pytest.mark.slow
def test_the_moving_average_beside_a_checkpoint_is_that_of_the_policy_so_far(
    tmp_path: Path, scenes: str, random_checkpoint: str
) -> None:
    judge = {"model": "ema", "ema_decay": 0.75}
    run = run_of(tmp_path, scenes, random_checkpoint, judge=judge, grpo=LEARNS)
    checkpoints = [str(run / "checkpoints" / f"checkpoint-{step}") for step in (1, 2)]
    start, first, second = (dict(load(path)[0].named_parameters()) for path in (random_checkpoint, *checkpoints))
    average = load_file(run / "checkpoints" / "checkpoint-2" / "judge_ema.safetensors")
    for name, value in average.items():
        expected = 0.75 * (0.75 * start[name] + 0.25 * first[name]) + 0.25 * second[name]
        torch.testing.assert_close(value, expected.detach(), atol=1e-6, rtol=1e-5)
    assert any(not torch.allclose(value, start[name], atol=1e-5) for name, value in average.items())


def test_a_judge_at_a_schedule_is_a_copy_of_the_policy_at_every_kth_step_and_stays_between(
    random_checkpoint: str, tmp_path: Path
) -> None:
    policy, _ = load(random_checkpoint)
    judge = MovingAverage(policy, 0.98, tmp_path, None, every=2)
    name = "model.language_model.norm.weight"
    start = policy.state_dict()[name].clone()
    found = []
    for step in range(1, 5):
        with torch.no_grad():
            policy.model.language_model.norm.weight.add_(1.0)
        judge.on_step_end(None, AfterStep(step), None, policy)
        found.append(judge.model.state_dict()[name].clone())
    # The policy is start + step; its copies are made after steps 2 and 4.
    expected = [start, start + 1 + 1, start + 1 + 1, start + 1 + 1 + 1 + 1]
    assert all(torch.equal(*pair) for pair in zip(found, expected, strict=True))


def test_a_question_goes_to_the_judge_of_its_aspect_and_both_are_called() -> None:
    image, reasoning = ScriptedJudge(lambda question: "Yes"), ScriptedJudge(lambda question: "awe")
    both = JudgeByAspect(image, reasoning)
    asked = [coherence_question("a", "b", MIKELS8), consistency_question(("x.png",), "a")]
    assert [reply.text for reply in both.answer(asked)] == ["awe", "Yes"]
    assert (image.asked, reasoning.asked) == ([asked[1]], [asked[0]])
    calls = []

    class Counting:
        def answer(self, questions: Any) -> list[Any]:
            calls.append(len(questions))
            return []

    assert JudgeByAspect(Counting(), Counting()).answer([]) == []
    assert calls == [0, 0]


@pytest.mark.slow
def test_a_checkpoint_without_its_moving_average_is_not_complete(
    tmp_path: Path, scenes: str, random_checkpoint: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: Any) -> Any:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr("emor3.judges.moving_average.save_file", fail)
    with pytest.raises(UserError, match="no room"):
        run_of(tmp_path, scenes, random_checkpoint, judge={"model": "ema"})
    assert latest_checkpoint(tmp_path / "run") is None


def test_a_moving_average_of_adapters_is_refused(tmp_path: Path, scenes: str, random_checkpoint: str) -> None:
    model = {"path": random_checkpoint, "lora": {"r": 2}}
    with pytest.raises(UserError, match="ema follows all weights"):
        train(load_recipe(write_recipe(tmp_path, scenes, random_checkpoint, model=model, judge={"model": "ema"})))


class SeeingJudge:
    """Sees what `truth` says is on an image: yes with 0.9, else 0.2."""

    def __init__(self, truth: dict[tuple[str, ...], str]) -> None:
        self.truth = truth

    def answer(self, questions: list[Question]) -> list[Reply]:
        told = [0.9 if self.truth[q.images] in q.text else 0.2 for q in questions]
        return [Reply("Yes" if p > 0.5 else "No", {"Yes": p, "No": 1 - p}) for p in told]


def described(texts: list[str]) -> list[EmotionalThought]:
    """Completions that describe the images with these texts."""
    return [parse(f"<step1>{t}</step1><step2>a</step2><step3>b</step3>\\boxed{{c}}") for t in texts]


def test_a_judge_that_sees_has_an_auc_of_1_and_one_that_always_agrees_of_a_half(scenes: str) -> None:
    samples = load_samples(scenes, split="test")[:4]
    texts = [f"Thing {place}." for place in range(4)]
    truth = {sample.images: text for sample, text in zip(samples, texts, strict=True)}
    seeing = calibrate(SeeingJudge(truth), samples, described(texts))
    assert (seeing.auc, seeing.yes_own, seeing.yes_swapped, seeing.n) == (1, 1, 0, 4)
    blind = calibrate(ScriptedJudge(lambda question: "Yes"), samples, described(texts))
    assert (blind.auc, blind.yes_own, blind.yes_swapped) == (0.5, 1, 1)
    assert "warning" in blind.line()
    assert "warning" not in seeing.line()


def test_a_policy_that_describes_everything_alike_leaves_nothing_to_try(scenes: str) -> None:
    samples = load_samples(scenes, split="test")[:3]
    judge = ScriptedJudge(lambda question: "Yes")
    assert calibrate(judge, samples, described(["A picture."] * 3)) is None
    assert judge.asked == []


class TiredJudge(SeeingJudge):
    """Fails on the first `count` questions."""

    def __init__(self, truth: dict[tuple[str, ...], str], count: int) -> None:
        super().__init__(truth)
        self.count = count

    def answer(self, questions: list[Question]) -> list[Any]:
        return [Reply("", error="HTTP 500")] * self.count + super().answer(questions)[self.count :]


def test_images_on_which_the_judge_failed_are_left_out(scenes: str) -> None:
    samples = load_samples(scenes, split="test")[:3]
    texts = [f"Thing {place}." for place in range(3)]
    truth = {sample.images: text for sample, text in zip(samples, texts, strict=True)}
    found = calibrate(TiredJudge(truth, 1), samples, described(texts))
    assert (found.auc, found.yes_own, found.n) == (1, 1, 2)
    assert calibrate(TiredJudge(truth, 6), samples, described(texts)) is None


def test_the_finding_is_one_line() -> None:
    assert Calibration(0.91, 0.95, 0.1, 32).line() == (
        "judge: AUC 0.91 between own and swapped descriptions of 32 images (yes to 95% and 10%)"
    )
