"""What all hosts share: a judge without the policy, a batch scored once for all its parts, single rows in batches."""

import asyncio
from collections import OrderedDict
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import cache
from typing import Any

from emor3.errors import UserError
from emor3.hosts.rows import image_paths, unpack
from emor3.hosts.settings import VARIABLE, HostSettings, read_settings
from emor3.judges.settings import JudgeBlock
from emor3.method.rewards import RewardSettings, failed_parts, paid_weights
from emor3.method.types import Aspect, Judge, Question, Reply, Rollout
from emor3.scoring.rows import completion_text, score_rows

MOST_REPLIES = 100_000
"""Replies of a frozen judge that are remembered: about 100 bytes each, beside their questions."""
UNJUDGED = ("accuracy", "format", "confidence")
"""Parts that are known without a judge."""


def build_judge(settings: HostSettings) -> Judge | None:
    """The judge that the settings name; None if nothing is asked. Raises UserError if one is asked and none named."""
    if not settings.reward.aspects:
        return None
    if settings.judge is None:
        raise UserError(
            f"reflection is paid for and no judge is named: name a file with a block judge (endpoint or checkpoint) in "
            f"{VARIABLE} or in the host's option, or set reward.reflective to 0 there (docs/trainers.md)"
        )
    if settings.judge.endpoint is not None:
        from emor3.judges.endpoint import EndpointJudge

        return EndpointJudge.from_settings(settings.judge.endpoint)
    return Remembering(_frozen(settings.judge))


def _frozen(settings: JudgeBlock) -> Judge:
    """The checkpoint that judges in this process. torch is imported here: a reward without it starts without."""
    from emor3.evaluation.candidate import load_any
    from emor3.judges.local import GenerateJudge, ScoreJudge

    assert settings.path is not None, "checked by JudgeBlock"
    kind = ScoreJudge if settings.backend == "score" else GenerateJudge
    return kind(*load_any(settings.path), settings.batch_size)


class Remembering:
    """A frozen judge that is asked each question once, however many batches it comes in."""

    def __init__(self, judge: Judge) -> None:
        self.judge = judge
        self._replies: OrderedDict[Question, Reply] = OrderedDict()

    def answer(self, questions: Sequence[Question]) -> list[Reply]:
        """Replies to the questions, in order. A failure is not remembered."""
        found = {question: self._replies[question] for question in questions if question in self._replies}
        new = [question for question in dict.fromkeys(questions) if question not in found]
        fresh = dict(zip(new, self.judge.answer(new), strict=True)) if new else {}
        self._replies |= {question: reply for question, reply in fresh.items() if reply.error is None}
        while len(self._replies) > MOST_REPLIES:
            self._replies.popitem(last=False)
        found |= fresh
        return [found[question] for question in questions]


class Scorer:
    """Scores packed rows by settings, with the judge that these name."""

    def __init__(self, settings: HostSettings, judge: Callable[[HostSettings], Judge | None] = build_judge) -> None:
        self.settings = settings
        self._build = judge
        self._judge: tuple[Judge | None] | None = None

    @property
    def judge(self) -> Judge | None:
        """The judge, built when it is first needed."""
        if self._judge is None:
            self._judge = (self._build(self.settings),)
        return self._judge[0]

    def score(self, texts: Sequence[Any], completions: Sequence[str], *, asks: bool = True) -> list[Rollout]:
        """N scored completions, for N packed rows; without `asks` no judge is asked, for accuracy and format.

        Raises UserError as `unpack` and `score_rows`.
        """
        rows = [self._row(text, f"row {place}") for place, text in enumerate(texts)]
        reward = self.settings.reward if asks else self.settings.reward.model_copy(update={"reflective": 0.0})
        return score_rows(rows, completions, self.judge if asks else None, reward, thinking=self.settings.thinking)

    def _row(self, text: Any, where: str) -> dict[str, Any]:
        """A packed row that names its distractors: what else a host's batch holds differs from call to call."""
        row = unpack(text, where)
        if Aspect.CONSISTENCY in self.settings.reward.aspects:
            image_paths(row, where)
        return {"distractors": [], **row}


def scorer(path: str | None, *, whole_groups: bool) -> Scorer:
    """The scorer of a settings file. Raises UserError as `read_settings`."""
    return Scorer(read_settings(path, whole_groups=whole_groups))


class SharedParts:
    """Parts of a batch for reward functions that a trainer calls one after another with the same list of completions.

    The processes of a run may each hold a part of a prompt's completions. If the judge fails on one of them, the part
    is None in all processes, so that no advantage compares a completion with it to one without.
    """

    def __init__(self, scorer: Callable[[], Scorer]) -> None:
        """`scorer` is called once and late: a trainer imports reward functions before it is set up."""
        self._make = scorer
        self._scorer: Scorer | None = None
        self._scored: dict[bool, tuple[object, list[Mapping[str, float | None]]]] = {}

    def values(self, part: str, rows: Any, completions: Sequence[Any]) -> list[float | None]:
        """One part of each completion; the trainer hands every function of a batch the same `completions` object."""
        asks = part not in UNJUDGED
        known = self._scored.get(asks)
        if known is None or known[0] is not completions:
            known = self._scored[asks] = (completions, self._parts(rows, completions, asks))
        if self._scorer is not None and part not in paid_weights(self._scorer.settings.reward):
            raise UserError(
                f"the function {part} is in the trainer's list, and the reward's settings pay nothing for it: give "
                f"it a weight there ({VARIABLE}), or leave the function out"
            )
        return [parts[part] for parts in known[1]]

    def _parts(self, rows: Any, completions: Sequence[Any], asks: bool) -> list[Mapping[str, float | None]]:
        if self._scorer is None:
            self._scorer = self._make()
        if rows is None:
            raise UserError("the data set has no column emor3: write it by `emor3 data export DIR OUT --for HOST`")
        rollouts = self._scorer.score(rows, [completion_text(completion) for completion in completions], asks=asks)
        if not asks:
            return [rollout.reward.parts for rollout in rollouts]
        settings = self._scorer.settings.reward
        pairs = zip(rows, rollouts, strict=True)
        failed = everywhere({(row, part) for row, one in pairs for part in failed_parts(one.reward, settings)})
        return [
            {name: None if (row, name) in failed else value for name, value in rollout.reward.parts.items()}
            for row, rollout in zip(rows, rollouts, strict=True)
        ]


def everywhere(found: set[tuple[str, str]]) -> set[tuple[str, str]]:
    """What any process of the run found. All processes must call this."""
    from accelerate import PartialState
    from accelerate.utils import gather_object

    if PartialState().num_processes == 1:
        return found
    return {tuple(one) for one in gather_object(sorted(found))}


@cache
def batching(path: str | None) -> "Batching":
    """The batches of a settings file, one for all that this process scores. Raises UserError as `read_settings`."""
    return Batching(scorer(path, whole_groups=False))


class JudgeFailedError(UserError):
    """The judge failed on a completion, in a host that can leave none out."""


class Batching:
    """Scores of single completions, which a host asks for one at a time, in batches: the judge is asked about many."""

    def __init__(self, scorer: Scorer, wait: float = 0.05, most: int = 256) -> None:
        """A batch is scored `wait` seconds after its first completion, or once there are `most`."""
        self.scorer = scorer
        self.wait = wait
        self.most = most
        self._waiting: list[tuple[Any, str, asyncio.Future[Rollout]]] = []
        self._timer: asyncio.TimerHandle | None = None
        self._thread = ThreadPoolExecutor(1)  # one: a judge holds a model, or a connection of its thread

    async def score(self, text: Any, completion: str) -> dict[str, float]:
        """`total` and the parts of one completion, given its packed row.

        Raises JudgeFailedError if the judge failed on it: a number would be held against the policy, and a host of this
        kind cannot leave out the completions of one prompt. And UserError as `Scorer.score`.
        """
        loop = asyncio.get_running_loop()
        scored: asyncio.Future[Rollout] = loop.create_future()
        self._waiting.append((text, completion, scored))
        if len(self._waiting) >= self.most:
            self._flush(loop)
        elif self._timer is None:
            self._timer = loop.call_later(self.wait, self._flush, loop)
        return numbers(await scored, self.scorer.settings.reward)

    def _flush(self, loop: asyncio.AbstractEventLoop) -> None:
        batch, self._waiting = self._waiting, []
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        texts, completions = [text for text, *_ in batch], [completion for _, completion, _ in batch]
        scored = loop.run_in_executor(self._thread, self.scorer.score, texts, completions)
        scored.add_done_callback(lambda done: _deliver(done, [future for *_, future in batch]))


def _deliver(done: "asyncio.Future[list[Rollout]]", waiting: Sequence["asyncio.Future[Rollout]"]) -> None:
    """Hand the scores of a batch, or its error, to those that wait for them and are not cancelled."""
    error = done.exception()
    for place, future in enumerate(waiting):
        if future.done():
            continue
        if error is None:
            future.set_result(done.result()[place])
        else:
            future.set_exception(error)


def numbers(rollout: Rollout, settings: RewardSettings) -> dict[str, float]:
    """`total` and the parts that have a value. Raises JudgeFailedError if one has none because the judge failed."""
    if failed := failed_parts(rollout.reward, settings):
        found = getattr(rollout.reflection, failed[0])
        why = f" ({found.reason})" if found is not None and found.reason else ""
        raise JudgeFailedError(
            f"the judge failed on {failed[0]} of sample {rollout.sample.id}{why}: this is not the policy's fault, and "
            "this host cannot leave a prompt out: mend the judge, then resume from the last checkpoint"
        )
    parts = {name: value for name, value in rollout.reward.parts.items() if value is not None}
    return {"total": rollout.reward.total, **parts}
