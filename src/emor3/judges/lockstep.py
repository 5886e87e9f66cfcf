"""A judge for distributed training: every rank runs the same number of forward passes, as sharded weights require."""

from collections import defaultdict
from collections.abc import Callable, Sequence
from typing import Any, Protocol

from emor3.method.types import Judge, Question, Reply

Work = tuple[int, Any]
"""The kind of work that one question is: images to encode, and what of a second pass decides its forwards."""


class CostedJudge(Judge, Protocol):
    """A judge that can say what a question costs it."""

    def work(self, question: Question) -> Work:
        """Ranks that ask equally many questions of each kind of work do the same forwards."""


class InStepJudge:
    """Pads each rank's questions so that every rank runs the same number of forward passes.

    Ranks ask unlike questions (malformed completions cannot be asked, equal ones are asked once), and a sharded model
    waits for every rank in every forward pass. So each kind of work is padded to the most that any rank has of it; the
    replies to fillers are discarded.
    """

    def __init__(self, judge: CostedJudge, gather_object: Callable[[list[Any]], list[Any]]) -> None:
        self.judge = judge
        self.gather_object = gather_object

    def answer(self, questions: Sequence[Question]) -> list[Reply]:
        """Replies to the questions, in order."""
        mine: defaultdict[Work, list[Question]] = defaultdict(list)
        for question in questions:
            mine[self.judge.work(question)].append(question)
        samples = self.gather_object([{work: (len(asked), asked[0]) for work, asked in mine.items()}])
        padded: list[Question] = []
        for work in sorted({work for sample in samples for work in sample}):
            most = max(sample[work][0] for sample in samples if work in sample)
            filler = next(sample[work][1] for sample in samples if work in sample)
            padded += [*mine[work], *[filler] * (most - len(mine[work]))]
        replies = dict(zip(padded, self.judge.answer(padded), strict=True))
        return [replies[question] for question in questions]
