"""Forms of the reward in training: what TRL sums is what is recorded, and separate advantages follow their formula."""

import math
from pathlib import Path
from typing import Any

import pytest
import torch
from test_train import batches_of, run_of, same

from emor3.models.checkpoints import load
from emor3.runs.records import read_jsonl
from emor3.training.scorer import BatchScorer, PartReward
from emor3.training.trainer import EmoTrainer

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
def written(monkeypatch: pytest.MonkeyPatch) -> None:
    """Completions that a random model would never write: in each group of four right and wrong answers, all in form."""
    original = BatchScorer._score

    def score(self: Any, texts: Any, samples: Any, step: Any) -> Any:
        wrong = [next(label for label in sample.labels.labels if label != sample.label) for sample in samples]
        told = [
            f"<step1>A thing {place % G}.</step1><step2>Much {place}.</step2><step3>Low.</step3>"
            f"\\boxed{{{other if place % G == 0 else sample.label}}}"
            for place, (sample, other) in enumerate(zip(samples, wrong, strict=True))
        ]
        return original(self, told, samples, step)

    monkeypatch.setattr(BatchScorer, "_score", score)


@pytest.fixture
def summed(monkeypatch: pytest.MonkeyPatch) -> Any:
    """The rewards (N,) of each step as TRL sums them."""
    kept, original = [], EmoTrainer._calculate_rewards

    def calculate(self: Any, *given: Any) -> Any:
        rewards = original(self, *given)
        kept.append((rewards * self.reward_weights).nansum(1))
        return rewards

    monkeypatch.setattr(EmoTrainer, "_calculate_rewards", calculate)
    return kept


FAST = ("relative", "separate", "placebo")


@pytest.mark.parametrize(
    "form", [form if form in FAST else pytest.param(form, marks=pytest.mark.slow) for form in FORMS]
)
def test_what_is_recorded_is_what_the_trainer_sums(
    tmp_path: Path, scenes: str, random_checkpoint: str, written: Any, summed: Any, form: Any
) -> None:
    changes = {name: dict(block) for name, block in FORMS[form].items()}
    reward = {"soft": True, "contrastive": 0} | changes.pop("reward", {})
    judge = {"calibration": 0} | changes.pop("judge", {})
    grpo = {"num_generations": G, "per_device_train_batch_size": 2 * G, "max_completion_length": 2, "save_steps": 2}
    run = run_of(tmp_path, scenes, random_checkpoint, reward=reward, judge=judge, grpo=grpo)
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


def pay_of(monkeypatch: pytest.MonkeyPatch, **columns: Any) -> None:
    """Have each part pay these values, one for each completion of a step."""
    monkeypatch.setattr(PartReward, "__call__", lambda self, completions, **_: columns[self.part])


def test_separate_advantages_are_the_formula_and_zero_only_where_every_part_is_equal(
    tmp_path: Path, scenes: str, random_checkpoint: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    # Three groups of two: accuracy differs in the first, format in the second, in the third nothing but a last digit.
    pay_of(monkeypatch, accuracy=[1.0, 0.0, 1.0, 1.0, 1.0 + 2.0**-21, 1.0], format=[1.0, 1.0, 1.0, 0.0, 1.0, 1.0])
    batches = batches_of(monkeypatch)
    settings = {"reflective": 0.0, "advantages": "separate"}  # weights 0.9 and 0.1
    grpo = {"max_steps": 1, "per_device_train_batch_size": 6}
    run = run_of(tmp_path, scenes, random_checkpoint, reward=settings, grpo=grpo, judge={"calibration": 0})
    # Two values 1 and 0 have the mean 0.5 and the deviation 0.5 ** 0.5; TRL adds 1e-4.
    one = 0.5 / (0.5**0.5 + 1e-4)
    sums = torch.tensor([0.9 * one, -0.9 * one, 0.1 * one, -0.1 * one, 0.0, 0.0])
    expected = sums / (sums.std() + 1e-4)
    found = batches[0]["advantages"]
    torch.testing.assert_close(found, expected, atol=1e-2, rtol=0)  # the last digit of the third group is in TRL's std
    assert found[4:].tolist() == [0.0, 0.0]
    # normalised together, both groups would weigh the same; so a part of weight 0.1 keeps a ninth of the other's say
    assert float(found[0] / found[2]) == pytest.approx(9, abs=1e-3)
    (row,) = read_jsonl(run / "metrics.jsonl")
    assert row["frac_reward_zero_std"] == pytest.approx(1 / 3)


def test_a_judge_that_is_a_checkpoint_judges_with_its_own_weights_and_processor(
    tmp_path: Path, scenes: str, random_checkpoint: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    judges, original = [], EmoTrainer.train

    def train(self: Any, **given: Any) -> Any:
        judges.append(self.reward_funcs[0].scorer.judge.judge)
        return original(self, **given)

    monkeypatch.setattr(EmoTrainer, "train", train)
    judge = {"model": "checkpoint", "path": "embedded", "calibration": 0}
    run_of(tmp_path, scenes, random_checkpoint, judge=judge, grpo={"max_steps": 1})
    weights = load("embedded")[0].state_dict()
    assert same(judges[0].model.state_dict(), weights)
    assert judges[0].processor.tokenizer.get_vocab() == load("embedded")[1].tokenizer.get_vocab()
