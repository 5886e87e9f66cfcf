"""Scores the completions of a generation batch once: parse, reflect, score, settle each group, record.

TRL asks for one reward function for each part of the reward and calls one after another; all read the same rollouts.

TRL asks only the global batch to be whole groups: 2 processes with 6 rows each and groups of 4 cut the second group in
two. So whatever depends on a whole group is computed by `by_group`, and nowhere from the rows of one process.
"""

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from functools import cached_property
from pathlib import Path
from typing import Any, TypeVar

from accelerate import PartialState
from accelerate.utils import gather_object
from transformers import TrainerState

from emor3.method.canaries import canaries
from emor3.method.group_rewards import placebo_places, settled
from emor3.method.reflection import other_contents, reflect
from emor3.method.rewards import RewardSettings, failed_parts, paid_weights
from emor3.method.thinking import Thinking, parse
from emor3.method.types import Aspect, Content, Judge, Reflection, Rollout, Sample
from emor3.runs.directory import ROLLOUTS
from emor3.runs.records import append_jsonl, rollout_row
from emor3.scoring.own import RewardPart
from emor3.scoring.rows import completion_text, scored_alone

T = TypeVar("T")
R = TypeVar("R")


def own_rows(rows: Sequence[T], count: int) -> Sequence[T]:
    """Of the rows of all processes, the `count` of this one."""
    first = PartialState().process_index * count
    return rows[first : first + count]


def by_group(rows: Sequence[T], generations: int, compute: Callable[[list[list[T]]], Iterable[Sequence[R]]]) -> list[R]:
    """What `compute` makes of the whole groups of a batch, for the rows of this process.

    `compute` gets the groups of all processes, G rows each, and gives as many values for each. All processes must call
    this, each with equally many rows.

    On one process, two groups of G = 2 rows, each row with the best reward of its group:

    >>> by_group([0.1, 0.9, 0.5, 0.4], 2, lambda groups: ([max(group)] * len(group) for group in groups))
    [0.9, 0.9, 0.5, 0.5]
    """
    gathered = gather_object(list(rows))
    groups = [gathered[start : start + generations] for start in range(0, len(gathered), generations)]
    return list(own_rows([value for values in compute(groups) for value in values], len(rows)))


class BatchScorer:
    """Scores the completions of a step once, for the reward functions that TRL calls one after another."""

    def __init__(
        self,
        thinking: Thinking,
        settings: RewardSettings,
        generations: int,
        build_judge: Callable[[], Judge],
        record: Callable[[int, list[Rollout]], None] = lambda step, rollouts: None,
        *,
        seed: int = 0,
        steps: int = 1,
        own: Mapping[str, RewardPart] | None = None,
        said: Callable[[str], str] = str,
    ) -> None:
        """`build_judge` is called once and late: a judge may need the model of the trainer that gets these rewards.

        `seed` and `steps` are those of the run: a placebo is drawn from the one, annealing ends with the other. `own`
        are the functions of `settings.own`, which get the completions of this process. `said` is that of the policy's
        processor (`said_by`).
        """
        self.thinking = thinking
        self.settings = settings
        self.generations = generations
        self.build_judge = build_judge
        self.record = record
        self.seed = seed
        self.steps = steps
        self.own = own or {}
        self.said = said
        self._scored: tuple[object, list[Rollout]] = (None, [])

    @cached_property
    def judge(self) -> Judge:
        """Who answers the two questions of reflection."""
        return self.build_judge()

    def rollouts(
        self,
        completions: Sequence[Any],
        samples: Sequence[Sample],
        step: int,
        log_metric: Callable[[str, float], None],
    ) -> list[Rollout]:
        """N scored completions. TRL hands every reward function the same list object, which is what is remembered."""
        if self._scored[0] is not completions:
            texts = [self.said(completion_text(completion)) for completion in completions]
            rollouts, errors = self._score(texts, samples, step)
            self._scored = (completions, rollouts)
            self.record(step, rollouts)
            for name, value in {**canaries(rollouts), "judge/errors": errors}.items():
                log_metric(name, value)
        return self._scored[1]

    def _score(self, texts: list[str], samples: Sequence[Sample], step: int) -> tuple[list[Rollout], float]:
        """Rollouts with the rewards that train, and the share of completions on which the judge failed."""
        thoughts = [parse(text, self.thinking) for text in texts]
        reflections = reflect(
            self.judge,
            list(zip(samples, thoughts, strict=True)),
            self.settings.aspects,
            distractors=self._distractors(samples),
        )
        paid, places = zip(*self._paid(samples, reflections, step), strict=True)
        alone = scored_alone(samples, texts, thoughts, paid, self.settings, self.own)
        rewards = by_group(
            [(one.sample, one.thought, one.reward) for one in alone],
            self.generations,
            lambda groups: (settled(group, self.settings, step, self.steps) for group in groups),
        )
        rollouts = [
            replace(one, reflection=found, reward=reward, placebo=place)
            for one, found, reward, place in zip(alone, reflections, rewards, places, strict=True)
        ]
        failed = [bool(failed_parts(one.reward, self.settings)) for one in alone]
        return rollouts, sum(failed) / len(failed)

    def _paid(
        self, samples: Sequence[Sample], reflections: Sequence[Reflection], step: int
    ) -> list[tuple[Reflection, int | None]]:
        """What each completion is paid for: its own reflection, or in a placebo that at another place of its group."""
        if not self.settings.placebo:
            return [(reflection, None) for reflection in reflections]

        def permuted(groups: list[list[tuple[Sample, Reflection]]]) -> Iterator[list[tuple[Reflection, int | None]]]:
            for group in groups:
                places = placebo_places(len(group), self.seed, step, group[0][0].id)
                yield [(group[place][1], place) for place in places]

        return by_group(list(zip(samples, reflections, strict=True)), self.generations, permuted)

    def _distractors(self, samples: Sequence[Sample]) -> list[list[Content]]:
        """What else each of N descriptions is asked on, from the samples of all ranks.

        That is what contrastive consistency pays for, and one other sample a group as a canary.
        """
        if Aspect.CONSISTENCY not in self.settings.aspects:
            return [[] for _ in samples]
        count = self.settings.contrastive

        def others(groups: list[list[Sample]]) -> Iterator[list[list[Content]]]:
            firsts = [group[0] for group in groups]
            for place in range(len(groups)):
                contents = other_contents(firsts, place, max(count, 1))
                yield [contents, *[contents[:count]] * (self.generations - 1)]

        return by_group(samples, self.generations, others)


class PartReward:
    """One part of the reward as a TRL reward function; its name is what every tracker shows."""

    def __init__(self, part: str, scorer: BatchScorer) -> None:
        self.part = part
        self.scorer = scorer
        self.__name__ = part

    def __call__(
        self,
        completions: Sequence[Any],
        sample: Sequence[Sample],
        trainer_state: TrainerState,
        log_metric: Callable[[str, float], None],
        **_: Any,
    ) -> list[float | None]:
        rollouts = self.scorer.rollouts(completions, sample, trainer_state.global_step + 1, log_metric)
        return [rollout.reward.parts[self.part] for rollout in rollouts]


def part_rewards(scorer: BatchScorer) -> tuple[list[PartReward], list[float]]:
    """Reward functions and their weights; a reflection that is not paid for has no function."""
    parts = paid_weights(scorer.settings)
    return [PartReward(name, scorer) for name in parts], list(parts.values())


class Recorder:
    """Writes the rollouts of all ranks to `rollouts.jsonl` from the main process, the groups of a step numbered."""

    def __init__(self, run: Path, generations: int) -> None:
        self.run = run
        self.generations = generations
        self.step, self.groups = 0, 0
        """The last step, and how many groups of it were written (dynamic sampling scores several batches)."""

    def __call__(self, step: int, rollouts: list[Rollout]) -> None:
        if step != self.step:
            self.step, self.groups = step, 0
        state, size = PartialState(), self.generations
        numbers = by_group(rollouts, size, lambda groups: [[number] * size for number in range(len(groups))])
        rows = [rollout_row(step, self.groups + n, rollout) for n, rollout in zip(numbers, rollouts, strict=True)]
        self.groups += len(rollouts) * state.num_processes // size
        gathered = gather_object(rows)
        if state.is_main_process:
            append_jsonl(self.run / ROLLOUTS, gathered)
