"""Forms of the reward in training: what TRL sums is what is recorded, and separate advantages follow their formula."""

import json
import math
from pathlib import Path
from typing import Any

import pytest
import torch
from test_train import run_of
from trl import GRPOTrainer

from emor3.data.folders import load_samples
from emor3.errors import UserError
from emor3.judges.local import ScoreJudge
from emor3.method.reflection import consistency_question
from emor3.method.rewards import PAPER
from emor3.method.thinking import parse
from emor3.models.checkpoints import load
from emor3.models.processors import load_processor
from emor3.runs.records import read_jsonl
from emor3.training.trainer import EmoTrainer
from emor3.training.trl_config import SEPARATE
from steps import trainer_of, writes

FORMS = {
    "relative": {"reward": {"relative": True}},
    "trust": {"reward": {"trust": True}},
    "anneal": {"reward": {"anneal": True}},
    "placebo": {"reward": {"placebo": True}},
    "all of them": {"reward": {"relative": True, "trust": True, "anneal": True, "placebo": True}},
    "separate": {"reward": {"advantages": "separate"}},
    "self-answer": {"judge": {"model": "reference", "coherence": "policy"}},
    "frozen checkpoint": {"judge": {"model": "checkpoint", "path": "embedded"}},
    "judge at a schedule": {"judge": {"model": "ema", "every": 2}},
}
G = 4


@pytest.fixture
def of_awe(tmp_path: Path, scenes: str) -> str:
    """The scenes that evoke awe, so that one answer is right for all."""
    (tmp_path / "awe").mkdir()
    (tmp_path / "awe" / "images").symlink_to(Path(scenes) / "images")
    rows = (Path(scenes) / "metadata.jsonl").read_text().splitlines(keepends=True)
    (tmp_path / "awe" / "metadata.jsonl").write_text("".join(row for row in rows if json.loads(row)["label"] == "awe"))
    return str(tmp_path / "awe")


def told(count: int) -> list[str]:
    """Completions for groups of four in which the first answer is wrong: a random model would never write them."""
    return [
        f"<step1>A thing {place % G}.</step1><step2>Much {place}.</step2><step3>Low.</step3>"
        f"\\boxed{{{'fear' if place % G == 0 else 'awe'}}}"
        for place in range(count)
    ]


@pytest.fixture
def summed(monkeypatch: pytest.MonkeyPatch) -> Any:
    """The rewards (N,) of each step as TRL sums them."""
    kept, original = [], GRPOTrainer._calculate_rewards

    def calculate(self: Any, *given: Any, **named: Any) -> Any:
        rewards = original(self, *given, **named)
        kept.append((rewards * self.reward_weights).nansum(1))
        return rewards

    monkeypatch.setattr(GRPOTrainer, "_calculate_rewards", calculate)
    return kept


FAST = ("relative",)


@pytest.mark.parametrize(
    "form", [form if form in FAST else pytest.param(form, marks=pytest.mark.slow) for form in FORMS]
)
def test_what_is_recorded_is_what_the_trainer_sums(
    tmp_path: Path, of_awe: str, random_checkpoint: str, monkeypatch: pytest.MonkeyPatch, summed: Any, form: Any
) -> None:
    writes(monkeypatch, load_processor(random_checkpoint).tokenizer, told)
    changes = {name: dict(block) for name, block in FORMS[form].items()}
    reward = PAPER | {"soft": True} | changes.pop("reward", {})
    judge = {"calibration": 0} | changes.pop("judge", {})
    grpo = {"num_generations": G, "per_device_train_batch_size": 2 * G, "save_steps": 2}
    data = {"train": of_awe, "labels": "mikels8"}
    run = run_of(tmp_path, of_awe, random_checkpoint, data=data, reward=reward, judge=judge, grpo=grpo)
    rows = list(read_jsonl(run / "rollouts.jsonl"))
    assert [row["reward"] for row in rows] == pytest.approx(torch.cat(summed).tolist(), abs=1e-6)
    shares = {"accuracy": 0.8, "format": 0.1, "consistency": 0.05, "coherence": 0.05}
    for row in rows:
        assert row["reward"] == pytest.approx(sum(share * row["parts"][name] for name, share in shares.items()))
    for step in (1, 2):
        for group in (0, 1):
            rows_of = [row for row in rows if (row["step"], row["group"]) == (step, group)]
            check_form(form, rows_of, step)


def check_form(form: Any, rows: Any, step: Any) -> None:
    """What can be told of a group from its record: which probabilities were paid, and to whom."""
    given = [row["reflection"]["consistency"]["probabilities"]["Yes"] for row in rows]
    paid = [row["parts"]["consistency"] for row in rows]
    assert len(rows) == G
    if form == "relative":
        # the three right ones: (1 + v - mean of the two others) / 2
        assert paid == pytest.approx([0.0, *((1 + v - (sum(given[1:]) - v) / 2) / 2 for v in given[1:])])
    elif form == "anneal":
        assert paid == pytest.approx([v * math.exp(-step / 2) for v in given])
    elif form == "placebo":
        assert paid == [given[row["placebo"]] for row in rows]
    elif form not in ("trust", "all of them"):
        assert paid == given
        assert {row["placebo"] for row in rows} == {None}


@pytest.mark.slow
def test_stated_confidence_trains_and_a_template_of_ones_own_must_ask_for_it(
    tmp_path: Path, of_awe: str, random_checkpoint: str, monkeypatch: pytest.MonkeyPatch, summed: Any
) -> None:
    def confident(count: int) -> list[str]:
        return [f"{text}<confidence>0.{place % G}</confidence>" for place, text in enumerate(told(count))]

    writes(monkeypatch, load_processor(random_checkpoint).tokenizer, confident)
    grpo = {"num_generations": G, "per_device_train_batch_size": 2 * G}
    given = {
        "data": {"train": of_awe, "labels": "mikels8"},
        "thinking": "confidence",
        "reward": {"reflective": 0, "confidence": 0.2},
        "grpo": grpo,
    }
    run = run_of(tmp_path, of_awe, random_checkpoint, **given)
    rows = list(read_jsonl(run / "rollouts.jsonl"))
    # the first of four says 0 and is wrong, the others say 0.1, 0.2, 0.3 and are right: 0.7 * right + 0.1 + 0.2 * Brier
    right = [0.8 + 0.2 * (1 - (1 - stated) ** 2) for stated in (0.1, 0.2, 0.3)]
    assert [row["reward"] for row in rows] == pytest.approx([0.3, *right] * (len(rows) // G))
    assert [row["reward"] for row in rows] == pytest.approx(torch.cat(summed).tolist(), abs=1e-6)
    assert [row["thought"]["confidence"] for row in rows[:G]] == [0, 0.1, 0.2, 0.3]
    assert "rewards/confidence/mean" in next(read_jsonl(run / "metrics.jsonl"))
    (tmp_path / "mine.txt").write_text("Which of {{ labels }}?")
    with pytest.raises(UserError, match=r"mine.txt asks for none: have it ask for <confidence>"):
        run_of(tmp_path, of_awe, random_checkpoint, **given, template=str(tmp_path / "mine.txt"), output_dir="b")


def paying(part: str, values: list[float]) -> Any:
    """A part of the reward that pays these values, one for each completion of a step."""

    def pay(completions: Any, **_: Any) -> list[float]:
        return values

    pay.__name__ = part
    return pay


def test_separate_advantages_are_the_formula_and_zero_only_where_every_part_is_equal(
    tmp_path: Path, scenes: str, random_checkpoint: str
) -> None:
    # Three groups of two: accuracy differs in the first, format in the second, in the third nothing but a last digit.
    accuracy = paying("accuracy", [1.0, 0.0, 1.0, 1.0, 1.0 + 2.0**-21, 1.0])
    form = paying("format", [1.0, 1.0, 1.0, 0.0, 1.0, 1.0])
    settings = {"num_generations": 2, "per_device_train_batch_size": 6, "multi_objective_aggregation": SEPARATE}
    given = settings | {"reward_weights": [0.9, 0.1]}
    trainer = trainer_of(EmoTrainer, tmp_path, scenes, random_checkpoint, [accuracy, form], **given)
    trainer.model.train()
    found = trainer._generate_and_score_completions([trainer.train_dataset[place // 2] for place in range(6)])
    # Two values 1 and 0 have the mean 0.5 and the deviation 0.5 ** 0.5; TRL adds 1e-4.
    one = 0.5 / (0.5**0.5 + 1e-4)
    sums = torch.tensor([0.9 * one, -0.9 * one, 0.1 * one, -0.1 * one, 0.0, 0.0])
    expected = sums / (sums.std() + 1e-4)
    advantages = found["advantages"]
    # the last digit of the third group is in TRL's deviation
    torch.testing.assert_close(advantages, expected, atol=1e-2, rtol=0)
    assert advantages[4:].tolist() == [0.0, 0.0]
    # normalised together, both groups would weigh the same; so a part of weight 0.1 keeps a ninth of the other's say
    assert float(advantages[0] / advantages[2]) == pytest.approx(9, abs=1e-3)
    assert trainer._metrics["train"]["frac_reward_zero_std"] == [pytest.approx(1 / 3)]


@pytest.mark.slow
def test_a_judge_that_is_a_checkpoint_judges_with_its_own_weights_and_processor(
    tmp_path: Path, scenes: str, random_checkpoint: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    judge = {"model": "checkpoint", "path": "embedded", "calibration": 0}
    writes(monkeypatch, load_processor(random_checkpoint).tokenizer, told)
    run = run_of(tmp_path, scenes, random_checkpoint, judge=judge, grpo={"max_steps": 1})
    samples = {sample.id: sample for sample in load_samples(scenes, split="train")}
    rows = list(read_jsonl(run / "rollouts.jsonl"))
    thoughts = [parse(row["completion"]) for row in rows]
    asked = zip(rows, thoughts, strict=True)
    questions = [consistency_question(samples[row["sample"]].images, thought.trigger) for row, thought in asked]
    for checkpoint, judged in (("embedded", True), (random_checkpoint, False)):
        replies = ScoreJudge(*load(checkpoint)).answer(questions)
        for row, reply in zip(rows, replies, strict=True):
            recorded = row["reflection"]["consistency"]["probabilities"]
            assert (recorded == pytest.approx(reply.probabilities, abs=1e-5)) == judged
