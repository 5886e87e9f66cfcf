"""Groups that straddle processes: whatever is computed for a group sees all of it, whichever process has its rows."""

import threading
from concurrent.futures import ThreadPoolExecutor
from types import SimpleNamespace

import pytest

from emor3.data.folders import load_samples
from emor3.method.reflection import ScriptedJudge
from emor3.method.rewards import RewardSettings
from emor3.method.types import Aspect, Reply
from emor3.training.groups import by_group
from emor3.training.trainer import BatchScorer

N, G = 12, 4  # three groups of four: the second one lies on both of two processes


@pytest.fixture
def processes(monkeypatch):
    """Call a function on some processes at once, with the rows of each; returns all that they returned."""
    place = threading.local()

    def gather(rows):
        place.handed[place.rank] = rows
        place.barrier.wait()
        gathered = [row for rows in place.handed for row in rows]
        place.barrier.wait()
        return gathered

    def run(count, function):
        handed, barrier, size = [None] * count, threading.Barrier(count, timeout=20), N // count

        def call(rank):
            place.rank, place.handed, place.barrier = rank, handed, barrier
            return function(slice(rank * size, (rank + 1) * size))

        with ThreadPoolExecutor(count) as pool:
            return [value for values in pool.map(call, range(count)) for value in values]

    monkeypatch.setattr("emor3.training.groups.gather_object", gather)
    monkeypatch.setattr("emor3.training.groups.PartialState", lambda: SimpleNamespace(process_index=place.rank))
    return run


def test_each_process_gets_the_values_of_its_rows_from_whole_groups(processes):
    found = processes(2, lambda own: by_group(range(N)[own], G, lambda groups: [[sum(group)] * G for group in groups]))
    assert found == [6] * 4 + [22] * 4 + [38] * 4  # 0 + 1 + 2 + 3, 4 + 5 + 6 + 7, 8 + 9 + 10 + 11


def completion(label, seen="dog"):
    text = f"<step1>A {seen}.</step1><step2>Joy.</step2><step3>Positive, high.</step3>\\boxed{{{label}}}"
    return [{"role": "assistant", "content": text}]


class BlindToCats:
    """Fails on descriptions of cats, and answers yes and awe else."""

    def answer(self, questions):
        return [self.reply(question) for question in questions]

    def reply(self, question):
        if question.aspect is not Aspect.CONSISTENCY:
            return Reply("awe")
        return Reply("", error="HTTP 500") if "cat" in question.text else Reply("Yes")


@pytest.fixture
def rollouts_of(scenes, processes):
    """Rollouts of three groups, each on another sample, scored by so many processes."""
    samples = [sample for sample in load_samples(scenes, split="train")[:3] for _ in range(G)]

    def score(count, settings, completions, judge):
        def score_own(own):
            scorer = BatchScorer("steps", settings, G, lambda step, rollouts: None)
            scorer.judge = judge
            return scorer.rollouts(completions[own], samples[own], 1, lambda name, value: None)

        return processes(count, score_own)

    return score


def test_votes_and_other_images_are_those_of_one_process_for_groups_that_straddle_two(rollouts_of):
    labels = ["awe", "fear", "awe", "anger", "awe", "awe", "fear", "sadness", "excitement", "awe", "awe", "awe"]
    judge = ScriptedJudge(lambda question: "Yes" if question.aspect is Aspect.CONSISTENCY else "awe")
    alone, together = (
        rollouts_of(count, RewardSettings(votes=0.2), list(map(completion, labels)), judge) for count in (1, 2)
    )
    assert together == alone
    votes = together[4].sample.distribution
    # of the other three in the group that straddles, one answers awe
    assert together[4].reward.parts["votes"] == pytest.approx((1 + votes.get("awe", 0) - 1 / 3) / 2)


@pytest.mark.parametrize("count", [1, 2])
def test_a_part_that_fails_on_one_process_is_left_out_for_the_whole_group(rollouts_of, count):
    completions = [completion("awe", seen="cat" if row == 4 else "dog") for row in range(N)]
    found = rollouts_of(count, RewardSettings(contrastive=0), completions, BlindToCats())
    assert [rollout.reward.parts["consistency"] for rollout in found] == [1.0] * 4 + [None] * 4 + [1.0] * 4
