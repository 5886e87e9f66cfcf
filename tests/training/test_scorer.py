"""Rewards on their way through TRL: one function for each part, scored once a batch, whole groups on any process."""

import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from types import SimpleNamespace
from typing import Any

import pytest

from emor3.data.folders import load_samples
from emor3.method.group_rewards import without_failed_parts
from emor3.method.reflection import ScriptedJudge
from emor3.method.rewards import weights
from emor3.method.types import Aspect, Question, Reply, RewardBreakdown, Rollout, Sample
from emor3.training.scorer import BatchScorer, by_group, part_rewards
from rewards import paper_reward

TEXT = "<step1>A dog.</step1><step2>Joy.</step2><step3>Positive, high.</step3>\\boxed{awe}"


@pytest.fixture(scope="module")
def samples(scenes: str) -> list[Sample]:
    return load_samples(scenes, split="train")


def scorer_for(settings: Any, seen: Any = None, judge: Any = None) -> BatchScorer:
    judge = judge or ScriptedJudge(lambda question: "Yes" if question.aspect is Aspect.CONSISTENCY else "awe")
    return BatchScorer(
        "steps", settings, 2, lambda: judge, lambda step, rollouts: (seen or []).append((step, rollouts))
    )


class State:
    global_step = 4


def call(function: Any, completions: list[list[dict[str, str]]], samples: list[Sample], logged: Any = None) -> Any:
    """One call as TRL makes it."""
    logged = {} if logged is None else logged
    return function(
        completions=completions, sample=samples, trainer_state=State, log_metric=lambda k, v: logged.update({k: v})
    )


def test_each_part_is_a_reward_of_its_name_with_the_weight_of_the_formula() -> None:
    settings = paper_reward()
    functions, part_weights = part_rewards(scorer_for(settings))
    assert [function.__name__ for function in functions] == ["accuracy", "format", "consistency", "coherence"]
    assert dict(zip([f.__name__ for f in functions], part_weights, strict=True)) == weights(settings)


def test_a_reflection_without_weight_has_no_reward_function_and_is_not_asked(samples: list[Sample]) -> None:
    scorer = scorer_for(paper_reward(coherence=False))
    functions, _ = part_rewards(scorer)
    assert [function.__name__ for function in functions] == ["accuracy", "format", "consistency"]
    call(functions[0], [[{"role": "assistant", "content": TEXT}]], [samples[0]])
    assert {question.aspect for question in scorer.judge.asked} == {Aspect.CONSISTENCY}


def test_all_parts_of_a_step_come_from_one_scoring_and_one_call_of_the_judge(samples: list[Sample]) -> None:
    seen = [None]
    scorer = scorer_for(paper_reward(), seen)
    functions, part_weights = part_rewards(scorer)
    sample = next(sample for sample in samples if sample.label == "awe")
    completions = [[{"role": "assistant", "content": TEXT}], [{"role": "assistant", "content": "nothing"}]]
    values = [call(f, completions, [sample] * 2) for f in functions]
    assert values == [[1.0, 0.0]] * 4
    assert len(scorer.judge.asked) == 2
    assert [step for step, _ in seen[1:]] == [5]
    total = sum(weight * value[0] for weight, value in zip(part_weights, values, strict=True))
    assert total == pytest.approx(seen[1][1][0].reward.total) == 1.0


def test_the_next_step_is_scored_anew(samples: list[Sample]) -> None:
    scorer = scorer_for(paper_reward())
    functions, _ = part_rewards(scorer)
    for _ in range(2):
        call(functions[0], [[{"role": "assistant", "content": TEXT}]], [samples[0]])
    assert len(scorer.judge.asked) == 4


def test_canaries_are_logged_once_a_step_with_one_swapped_question_for_each_group(samples: list[Sample]) -> None:
    scorer = scorer_for(paper_reward())
    functions, _ = part_rewards(scorer)
    shown = [sample for sample in samples[:2] for _ in range(2)]
    completions, logged = [[{"role": "assistant", "content": TEXT}]] * 4, {}
    call(functions[0], completions, shown, logged)
    assert logged["canary/yes_own"] == logged["canary/yes_swapped"] == 1
    assert logged["canary/duplicates"] == 1  # one description on two images
    again = {}
    call(functions[1], completions, shown, again)
    assert again == {}


def test_votes_are_paid_for_the_group_and_its_total_holds_them(samples: list[Sample]) -> None:
    sample = next(sample for sample in samples if sample.label == "awe")
    scorer = scorer_for(paper_reward(votes=0.2))
    functions, part_weights = part_rewards(scorer)
    by_name = {f.__name__: f for f in functions}
    completions = [[{"role": "assistant", "content": TEXT}]] * 2
    values = {part: call(function, completions, [sample] * 2)[0] for part, function in by_name.items()}
    # both answer awe: q of the other one is 1
    assert values["votes"] == pytest.approx((1 + sample.distribution["awe"] - 1) / 2)
    total = sum(weight * values[f.__name__] for f, weight in zip(functions, part_weights, strict=True))
    rollouts = scorer.rollouts(completions, [sample] * 2, 5, lambda k, v: None)
    assert rollouts[0].reward.total == pytest.approx(total)


def test_a_part_that_failed_for_one_completion_is_left_out_for_its_whole_group(samples: list[Sample]) -> None:
    parts = [
        {"accuracy": 1.0, "format": 1.0, "consistency": 1.0, "coherence": 1.0},
        {"accuracy": 0.0, "format": 1.0, "consistency": None, "coherence": 1.0},
    ]
    settled = without_failed_parts([RewardBreakdown(0.0, one) for one in parts], paper_reward())
    assert [one.parts for one in settled] == [{**one, "consistency": None} for one in parts]
    # 0.8 + 0.1 + 0.05 and 0.1 + 0.05: the first gains nothing over the second by the part that the judge failed on
    assert [one.total for one in settled] == pytest.approx([0.95, 0.15])


class HalfBlindJudge:
    """Answers on coherence, fails on images."""

    def answer(self, questions: list[Question]) -> list[Any]:
        return [Reply("", error="HTTP 500") if question.images else Reply("awe") for question in questions]


def test_where_the_judge_failed_trl_gets_none_for_the_group_and_the_record_what_trained(samples: list[Sample]) -> None:
    seen = [None]
    scorer = scorer_for(paper_reward(), seen, HalfBlindJudge())
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


# --- groups that straddle processes -----------------------------------------------------------------------------------

N, G = 12, 4  # three groups of four: the second one lies on both of two processes


@pytest.fixture
def processes(monkeypatch: pytest.MonkeyPatch) -> Callable[..., list[Any]]:
    """Call a function on some processes at once, with the rows of each; returns all that they returned."""
    place = threading.local()

    def gather(rows: Any) -> Any:
        place.handed[place.rank] = rows
        place.barrier.wait()
        gathered = [row for rows in place.handed for row in rows]
        place.barrier.wait()
        return gathered

    def run(count: int, function: Any) -> list[Any]:
        handed, barrier, size = [None] * count, threading.Barrier(count, timeout=20), N // count

        def call(rank: Any) -> Any:
            place.rank, place.handed, place.barrier = rank, handed, barrier
            return function(slice(rank * size, (rank + 1) * size))

        with ThreadPoolExecutor(count) as pool:
            return [value for values in pool.map(call, range(count)) for value in values]

    monkeypatch.setattr("emor3.training.scorer.gather_object", gather)
    monkeypatch.setattr("emor3.training.scorer.PartialState", lambda: SimpleNamespace(process_index=place.rank))
    return run


def test_each_process_gets_the_values_of_its_rows_from_whole_groups(processes: Callable[..., list[Any]]) -> None:
    found = processes(2, lambda own: by_group(range(N)[own], G, lambda groups: [[sum(group)] * G for group in groups]))
    assert found == [6] * 4 + [22] * 4 + [38] * 4  # 0 + 1 + 2 + 3, 4 + 5 + 6 + 7, 8 + 9 + 10 + 11


def completion(label: Any, seen: str = "dog") -> list[Any]:
    text = f"<step1>A {seen}.</step1><step2>Joy.</step2><step3>Positive, high.</step3>\\boxed{{{label}}}"
    return [{"role": "assistant", "content": text}]


class BlindToCats:
    """Fails on descriptions of cats, and answers yes and awe else."""

    def answer(self, questions: list[Question]) -> list[Any]:
        return [self.reply(question) for question in questions]

    def reply(self, question: Question) -> Any:
        if question.aspect is not Aspect.CONSISTENCY:
            return Reply("awe")
        return Reply("", error="HTTP 500") if "cat" in question.text else Reply("Yes")


@pytest.fixture
def rollouts_of(scenes: str, processes: Callable[..., list[Any]]) -> Callable[..., list[Rollout]]:
    """Rollouts of three groups, each on another sample, scored by so many processes."""
    samples = [sample for sample in load_samples(scenes, split="train")[:3] for _ in range(G)]

    def score(count: int, settings: Any, completions: list[list[dict[str, str]]], judge: Any) -> Any:
        def score_own(own: Any) -> Any:
            scorer = BatchScorer("steps", settings, G, lambda: judge)
            return scorer.rollouts(completions[own], samples[own], 1, lambda name, value: None)

        return processes(count, score_own)

    return score


def test_votes_and_other_images_are_those_of_one_process_for_groups_that_straddle_two(
    rollouts_of: Callable[..., list[Rollout]],
) -> None:
    labels = ["awe", "fear", "awe", "anger", "awe", "awe", "fear", "sadness", "excitement", "awe", "awe", "awe"]
    judge = ScriptedJudge(lambda question: "Yes" if question.aspect is Aspect.CONSISTENCY else "awe")
    alone, together = (
        rollouts_of(count, paper_reward(votes=0.2), list(map(completion, labels)), judge) for count in (1, 2)
    )
    assert together == alone
    votes = together[4].sample.distribution
    # of the other three in the group that straddles, one answers awe
    assert together[4].reward.parts["votes"] == pytest.approx((1 + votes.get("awe", 0) - 1 / 3) / 2)


@pytest.mark.parametrize("count", [1, 2])
def test_a_part_that_fails_on_one_process_is_left_out_for_the_whole_group(
    rollouts_of: Callable[..., list[Rollout]], count: int
) -> None:
    completions = [completion("awe", seen="cat" if row == 4 else "dog") for row in range(N)]
    found = rollouts_of(count, paper_reward(contrastive=0), completions, BlindToCats())
    assert [rollout.reward.parts["consistency"] for rollout in found] == [1.0] * 4 + [None] * 4 + [1.0] * 4


class SeesDogs:
    """Says yes to descriptions of dogs alone, and reads awe from all."""

    def answer(self, questions: Any) -> list[Any]:
        return [
            Reply("awe" if q.aspect is not Aspect.CONSISTENCY else "Yes" if "dog" in q.text else "No")
            for q in questions
        ]


@pytest.mark.parametrize("count", [1, 2])
def test_a_placebo_pays_the_verdicts_of_another_completion_of_the_group_and_records_whose(
    rollouts_of: Callable[..., list[Rollout]], count: int
) -> None:
    completions = [completion("awe", seen="cat" if row % 4 else "dog") for row in range(N)]
    settings = paper_reward(contrastive=0, placebo=True)
    found = rollouts_of(count, settings, completions, SeesDogs())
    for first in range(0, N, G):
        group = found[first : first + G]
        places = [rollout.placebo for rollout in group]
        assert sorted(places) == list(range(G))
        # the judge supports the dog alone, at place 0, and its verdict is paid where that place is drawn
        assert [rollout.reward.parts["consistency"] for rollout in group] == [float(place == 0) for place in places]
        assert [rollout.reflection.consistency.verdict == "supported" for rollout in group] == [
            True,
            False,
            False,
            False,
        ]
    assert any(rollout.placebo != row % G for row, rollout in enumerate(found))
    real = rollouts_of(count, settings.model_copy(update={"placebo": False}), completions, SeesDogs())
    assert {rollout.placebo for rollout in real} == {None}
    assert sum(r.reward.total for r in found) == pytest.approx(sum(r.reward.total for r in real))


def test_relative_pay_is_that_of_one_process_for_groups_that_straddle_two(
    rollouts_of: Callable[..., list[Rollout]],
) -> None:
    completions = [completion("awe" if row % 3 else "fear", seen="cat" if row % 2 else "dog") for row in range(N)]
    settings = paper_reward(contrastive=0, relative=True, trust=True)
    alone, together = (rollouts_of(count, settings, completions, SeesDogs()) for count in (1, 2))
    assert together == alone
