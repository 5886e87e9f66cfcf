"""Rewards on their way through TRL: one function for each part, scored once a step, and a stop before NaN."""

import time
from types import SimpleNamespace

import pytest
import torch

from emor3.data.folders import load_samples
from emor3.errors import UserError
from emor3.method.reflection import ScriptedJudge
from emor3.method.rewards import RewardSettings, weights, without_failed_parts
from emor3.method.types import Aspect, Reply, RewardBreakdown
from emor3.training.callbacks import RunCallback, StopOnNonFinite
from emor3.training.trainer import BatchScorer, EmoTrainer, Stopwatch, part_rewards

TEXT = "<step1>A dog.</step1><step2>Joy.</step2><step3>Positive, high.</step3>\\boxed{awe}"


@pytest.fixture(scope="module")
def samples(scenes):
    return load_samples(scenes, split="train")


def scorer_for(settings, seen=None):
    scorer = BatchScorer("steps", settings, 2, lambda step, rollouts: (seen or []).append((step, rollouts)))
    scorer.judge = ScriptedJudge(lambda question: "Yes" if question.aspect is Aspect.CONSISTENCY else "awe")
    return scorer


class State:
    global_step = 4


def call(function, completions, samples, logged=None):
    """One call as TRL makes it."""
    logged = {} if logged is None else logged
    return function(
        completions=completions, sample=samples, trainer_state=State, log_metric=lambda k, v: logged.update({k: v})
    )


def test_each_part_is_a_reward_of_its_name_with_the_weight_of_the_formula():
    settings = RewardSettings()
    functions, part_weights = part_rewards(scorer_for(settings))
    assert [function.__name__ for function in functions] == ["accuracy", "format", "consistency", "coherence"]
    assert dict(zip([f.__name__ for f in functions], part_weights, strict=True)) == weights(settings)


def test_a_reflection_without_weight_has_no_reward_function_and_is_not_asked(samples):
    scorer = scorer_for(RewardSettings(coherence=False))
    functions, _ = part_rewards(scorer)
    assert [function.__name__ for function in functions] == ["accuracy", "format", "consistency"]
    call(functions[0], [[{"role": "assistant", "content": TEXT}]], [samples[0]])
    assert {question.aspect for question in scorer.judge.asked} == {Aspect.CONSISTENCY}


def test_all_parts_of_a_step_come_from_one_scoring_and_one_call_of_the_judge(samples):
    seen = [None]
    scorer = scorer_for(RewardSettings(), seen)
    functions, part_weights = part_rewards(scorer)
    sample = next(sample for sample in samples if sample.label == "awe")
    completions = [[{"role": "assistant", "content": TEXT}], [{"role": "assistant", "content": "nothing"}]]
    values = [call(f, completions, [sample] * 2) for f in functions]
    assert values == [[1.0, 0.0]] * 4
    assert len(scorer.judge.asked) == 2
    assert [step for step, _ in seen[1:]] == [5]
    total = sum(weight * value[0] for weight, value in zip(part_weights, values, strict=True))
    assert total == pytest.approx(seen[1][1][0].reward.total) == 1.0


def test_the_next_step_is_scored_anew(samples):
    scorer = scorer_for(RewardSettings())
    functions, _ = part_rewards(scorer)
    for _ in range(2):
        call(functions[0], [[{"role": "assistant", "content": TEXT}]], [samples[0]])
    assert len(scorer.judge.asked) == 4


def test_canaries_are_logged_once_a_step_with_one_swapped_question_for_each_group(samples):
    scorer = scorer_for(RewardSettings())
    functions, _ = part_rewards(scorer)
    shown = [sample for sample in samples[:2] for _ in range(2)]
    completions, logged = [[{"role": "assistant", "content": TEXT}]] * 4, {}
    call(functions[0], completions, shown, logged)
    assert logged["canary/yes_own"] == logged["canary/yes_swapped"] == 1
    assert logged["canary/duplicates"] == 1  # one description on two images
    again = {}
    call(functions[1], completions, shown, again)
    assert again == {}


def test_votes_are_paid_for_the_group_and_its_total_holds_them(samples):
    sample = next(sample for sample in samples if sample.label == "awe")
    scorer = scorer_for(RewardSettings(votes=0.2))
    functions, part_weights = part_rewards(scorer)
    by_name = {f.__name__: f for f in functions}
    completions = [[{"role": "assistant", "content": TEXT}]] * 2
    values = {part: call(function, completions, [sample] * 2)[0] for part, function in by_name.items()}
    # both answer awe: q of the other one is 1
    assert values["votes"] == pytest.approx((1 + sample.distribution["awe"] - 1) / 2)
    total = sum(weight * values[f.__name__] for f, weight in zip(functions, part_weights, strict=True))
    rollouts = scorer.rollouts(completions, [sample] * 2, 5, lambda k, v: None)
    assert rollouts[0].reward.total == pytest.approx(total)


def test_a_part_that_failed_for_one_completion_is_left_out_for_its_whole_group(samples):
    parts = [
        {"accuracy": 1.0, "format": 1.0, "consistency": 1.0, "coherence": 1.0},
        {"accuracy": 0.0, "format": 1.0, "consistency": None, "coherence": 1.0},
    ]
    settled = without_failed_parts([RewardBreakdown(0.0, one) for one in parts], RewardSettings())
    assert [one.parts for one in settled] == [{**one, "consistency": None} for one in parts]
    # 0.8 + 0.1 + 0.05 and 0.1 + 0.05: the first gains nothing over the second by the part that the judge failed on
    assert [one.total for one in settled] == pytest.approx([0.95, 0.15])


class HalfBlindJudge:
    """Answers on coherence, fails on images."""

    def answer(self, questions):
        return [Reply("", error="HTTP 500") if question.images else Reply("awe") for question in questions]


def test_where_the_judge_failed_trl_gets_none_for_the_group_and_the_record_what_trained(samples):
    seen = [None]
    scorer = scorer_for(RewardSettings(), seen)
    scorer.judge = HalfBlindJudge()
    functions, _ = part_rewards(scorer)
    completions = [[{"role": "assistant", "content": text}] for text in (TEXT, "nothing")]
    sample, logged = next(sample for sample in samples if sample.label == "awe"), {}
    values = [call(function, completions, [sample] * 2, logged) for function in functions]
    assert values == [[1.0, 0.0], [1.0, 0.0], [None, None], [1.0, 0.0]]
    recorded = [rollout.reward for rollout in seen[1][1]]
    assert [[reward.parts[f.__name__] for reward in recorded] for f in functions] == values
    assert [reward.total for reward in recorded] == pytest.approx([0.95, 0.0])  # 0.8 + 0.1 + 0.05
    assert logged["judge/errors"] == 0.5
    assert "canary/yes_own" not in logged
    assert "canary/yes_swapped" not in logged


def other_inputs(step, attempt, rank, count=6):
    """What a process of a run with groups of three draws in place of its dry groups."""
    trainer = SimpleNamespace(
        args=SimpleNamespace(seed=7),
        state=SimpleNamespace(global_step=step),
        accelerator=SimpleNamespace(process_index=rank),
        train_dataset=range(100_000),
        num_generations=3,
    )
    return EmoTrainer._other_inputs(trainer, count, attempt)


def test_other_prompts_for_dry_groups_come_in_whole_groups():
    first, second = (other_inputs(4, 0, 0)[place : place + 3] for place in (0, 3))
    assert len(set(first)) == len(set(second)) == 1
    assert len({*first, *second}) == 2
    assert len(other_inputs(4, 0, 0, count=12)) == 12


def test_other_prompts_are_drawn_anew_for_each_step_try_and_process_and_again_the_same_after_a_resume():
    drawn = [other_inputs(*place) for place in ((4, 0, 0), (5, 0, 0), (4, 1, 0), (4, 0, 1))]
    assert len({tuple(rows) for rows in drawn}) == 4
    assert other_inputs(4, 0, 0) == drawn[0]


def test_an_inner_phase_is_not_counted_in_the_outer_one(monkeypatch):
    clock = iter([0.0, 1.0, 4.0, 10.0])  # outer starts, inner starts, inner ends, outer ends
    monkeypatch.setattr(time, "perf_counter", lambda: next(clock))
    watch = Stopwatch()
    with watch.phase("update"), watch.phase("generate"):
        pass
    assert watch.read() == {"generate": 3.0, "update": 7.0}
    assert watch.read() == {}


def test_the_time_split_names_mean_seconds_and_shares():
    callback = RunCallback(None, None, None)
    callback.seconds.update({"time/generate": 1.0, "time/update": 3.0})
    callback.steps = 2
    # 4 seconds in 2 steps
    assert callback.time_split() == "time per step: 2.00 s = update 1.50 s (75%) + generate 0.50 s (25%)"


def test_a_non_finite_gradient_stops_before_the_update():
    model = torch.nn.Linear(2, 1)
    model(torch.ones(1, 2)).sum().backward()
    done, skipped = (SimpleNamespace(step_was_skipped=skipped) for skipped in (False, True))
    StopOnNonFinite().on_pre_optimizer_step(None, State, None, model, done)
    with pytest.raises(UserError, match="not finite at step 5"):  # under DeepSpeed, which shows no gradient
        StopOnNonFinite().on_pre_optimizer_step(None, State, None, torch.nn.Identity(), skipped)
    model.weight.grad[0, 0] = float("nan")
    with pytest.raises(UserError, match="not finite at step 5"):
        StopOnNonFinite().on_pre_optimizer_step(None, State, None, model, done)
