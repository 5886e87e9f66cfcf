"""`score_rows`: rows and completions in, parts of the reward out. What other trainers and harnesses build on.

A batch is parsed, reflected on and scored as in training, by the same functions; there is no step, so nothing that
depends on one.
"""

import reprlib
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from typing import Any, TypeAlias

from emor3.errors import UserError
from emor3.method.annotations import read_attributes, read_votes
from emor3.method.group_rewards import settled
from emor3.method.labels import LabelSet, get_label_set, match
from emor3.method.reflection import ScriptedJudge, other_contents, reflect
from emor3.method.rewards import RewardSettings, check_thinking, score
from emor3.method.thinking import Thinking, parse
from emor3.method.types import Aspect, Content, EmotionalThought, Judge, Reflection, Rollout, Sample
from emor3.scoring.own import OwnJudge, RewardPart, check_handed_over, with_own_parts

Row: TypeAlias = Mapping[str, Any] | Sample
"""`label`; `labels` (a list or a LabelSet; Mikels' eight if absent); `images` (paths), `text`, `clip` (the name of the
video whose frames the images are); `distractors` (for each
other sample a path, or a list of paths); `distribution` (human votes by label) and `attributes`, each None if unknown,
if they are paid for; or a sample of a data folder."""


def score_rows(
    rows: Sequence[Row],
    completions: Sequence[str] | None = None,
    judge: Judge | None = None,
    settings: RewardSettings | None = None,
    *,
    thinking: Thinking = "steps",
    own: Mapping[str, RewardPart] | None = None,
) -> list[Rollout]:
    """N scored completions, one for each of N rows, in order; their `reward` holds parts and total.

    `completions` defaults to the `response` of each row; `own` are the functions of `settings.own`. The judge is called
    once, with each question once. Equal rows are one group, the completions of one prompt: what the judge fails on for
    one of them is None for all and left out of their totals (`failed_parts` names it), because an advantage compares
    the completions of a group. A row that names no distractors takes other rows of the batch, as training does. The
    same input and replies give the same output.
    Raises UserError, which names the row, for one that cannot be scored, for too few distractors (`contrastive`), and
    for settings that need a training run; and as OwnJudge and with_own_parts.

    Two answers to one picture, of which the judge supports the first description: 0.6 + 0.1 + 0.3 * (1 + 1) / 2 and
    0.1 + 0.3 * (0 + 1) / 2.

    >>> row = {"label": "fear", "labels": ["fear", "joy"], "images": ["fog.jpg"]}
    >>> texts = [
    ...     rf"<step1>{seen}</step1><step2>tense</step2><step3>negative, high</step3>\\boxed{{{label}}}"
    ...     for seen, label in (("fog", "fear"), ("sun", "joy"))
    ... ]
    >>> def reply(question):
    ...     return "fear" if not question.images else "Yes" if "fog" in question.text else "No"
    >>> scored = score_rows([row, row], texts, ScriptedJudge(reply), RewardSettings(contrastive=0))
    >>> [round(rollout.reward.total, 4) for rollout in scored]
    [1.0, 0.25]
    """
    settings = settings or RewardSettings()
    texts = _texts(rows, completions)
    check_thinking(settings, thinking)
    _check(settings, judge, own or {})
    samples, distractors = _read(rows, settings)
    thoughts = [parse(text, thinking) for text in texts]
    groups = _groups(rows, samples, distractors)
    reflections = reflect(
        ScriptedJudge(lambda question: "") if judge is None else OwnJudge(judge),
        list(zip(samples, thoughts, strict=True)),
        settings.aspects,
        distractors=_others(samples, distractors, groups, settings),
    )
    rollouts = scored_alone(samples, texts, thoughts, reflections, settings, own or {})
    for places in groups:
        group = [rollouts[place] for place in places]
        rewards = settled([(one.sample, one.thought, one.reward) for one in group], settings)
        for place, reward in zip(places, rewards, strict=True):
            rollouts[place] = replace(rollouts[place], reward=reward)
    return rollouts


def scored_alone(
    samples: Sequence[Sample],
    texts: Sequence[str],
    thoughts: Sequence[EmotionalThought],
    reflections: Sequence[Reflection],
    settings: RewardSettings,
    own: Mapping[str, RewardPart],
) -> list[Rollout]:
    """N completions with their rewards, each by itself, with parts of one's own: before their groups are settled."""
    judged = zip(samples, texts, thoughts, reflections, strict=True)
    alone = [Rollout(*parts, score(parts[2], parts[0], parts[3], settings)) for parts in judged]
    return with_own_parts(alone, settings, own) if settings.own else alone


def completion_text(completion: Any) -> str:
    """Text of a completion as a trainer hands it over: plain, or one assistant message, itself plain or in parts."""
    if isinstance(completion, str):
        return completion
    content = completion[0]["content"]
    if isinstance(content, str):
        return content
    return "".join(part["text"] for part in content if part["type"] == "text")


def _texts(rows: Sequence[Row], completions: Sequence[str] | None) -> list[str]:
    given = [row.get("response") if isinstance(row, Mapping) else None for row in rows]
    texts = given if completions is None else list(completions)
    if len(texts) != len(rows):
        raise UserError(f"{len(rows)} rows and {len(texts)} completions: give one completion for each row")
    for place, text in enumerate(texts):
        if not isinstance(text, str):
            raise UserError(f"row {place}: 'response' must be a string, found {reprlib.repr(text)}")
    return [str(text) for text in texts]


def _check(settings: RewardSettings, judge: Judge | None, own: Mapping[str, RewardPart]) -> None:
    if settings.anneal or settings.placebo:
        name = "anneal" if settings.anneal else "placebo"
        raise UserError(f"reward.{name} depends on the step of a training run: leave it out to score rows")
    if settings.aspects and judge is None:
        raise UserError("reflection is paid for and there is no judge: give one, or RewardSettings(reflective=0)")
    check_handed_over(settings.own, own)


def _read(rows: Sequence[Row], settings: RewardSettings) -> tuple[list[Sample], list[tuple[Content, ...] | None]]:
    """Sample and distractors of each row; None if it names none."""
    samples, distractors = list[Sample](), list[tuple[Content, ...] | None]()
    for place, row in enumerate(rows):
        try:
            samples.append(row if isinstance(row, Sample) else _shown(row, place, settings))
            named = None if isinstance(row, Sample) else row.get("distractors")
            distractors.append(None if named is None else tuple(_distractor(one) for one in _listed(named)))
        except UserError as error:
            raise UserError(f"row {place}: {error}") from None
    return samples, distractors


def row_sample(row: Mapping[str, Any], name: str) -> Sample:
    """The sample of a row by its label and label set, Mikels' eight if it names none; without images.

    Raises UserError for a label that is not in the set.
    """
    given = row.get("labels")
    if given is None:
        labels = get_label_set("mikels8")
    elif isinstance(given, LabelSet):
        labels = given
    elif isinstance(given, list | tuple) and all(isinstance(label, str) for label in given):
        labels = LabelSet("labels", tuple(given))
    else:
        raise UserError(f"'labels' must be a list of strings, found {reprlib.repr(given)}")
    written = row.get("label")
    label = match(written, labels) if isinstance(written, str) else None
    if label is None:
        raise UserError(f"'label' must be one of {', '.join(labels.labels)}, found {reprlib.repr(written)}")
    return Sample(id=name, images=("",), label=label, labels=labels)


def row_content(row: Mapping[str, Any]) -> Content:
    """Images and text of a row that a judge is asked about. Raises UserError if there is neither, or no paths."""
    images, text = row.get("images"), row.get("text")
    if text is not None and not isinstance(text, str):
        raise UserError(f"'text' must be a string, found {reprlib.repr(text)}")
    paths = [] if images is None and text is not None else images
    if not isinstance(paths, list | tuple) or not all(isinstance(path, str) for path in paths) or not (paths or text):
        raise UserError(f"'images' must be a list of image files for the judge, found {reprlib.repr(images)}")
    return tuple(paths), text


def _shown(row: Mapping[str, Any], place: int, settings: RewardSettings) -> Sample:
    sample = _with_annotations(row_sample(row, str(row.get("id", place))), row, settings)
    if Aspect.CONSISTENCY not in settings.aspects and "images" not in row:
        return replace(sample, images=())
    images, text = row_content(row)
    return replace(sample, images=images, text=text, clip=row_clip(row))


def row_clip(row: Mapping[str, Any]) -> str | None:
    """Name of the video whose frames the images of a row are, if they are. Raises UserError if it is no string."""
    clip = row.get("clip")
    if clip is not None and not isinstance(clip, str):
        raise UserError(f"'clip' must be the name of the video whose frames the images are, found {reprlib.repr(clip)}")
    return clip


def _with_annotations(sample: Sample, row: Mapping[str, Any], settings: RewardSettings) -> Sample:
    """The sample with votes and attributes of its row. Raises UserError if they are paid for and the row says nothing.

    None says that nothing is known, which costs no completion anything, as in training.
    """
    for name, paid in (("distribution", settings.votes), ("attributes", settings.attributes)):
        if paid > 0 and name not in row:
            setting = "votes" if name == "distribution" else name
            raise UserError(
                f"reward.{setting} is paid by the row's {name!r}, and it has none: give it, or null if unknown"
            )
    return replace(sample, distribution=read_votes(row, sample.labels), attributes=read_attributes(row))


def _listed(named: Any) -> Iterable[Any]:
    if isinstance(named, list | tuple):
        return named
    raise UserError(f"'distractors' must be a list, found {reprlib.repr(named)}")


def _distractor(named: Any) -> Content:
    """What another sample shows: the path of its image, or the paths of its images."""
    paths = [named] if isinstance(named, str) else named
    if not isinstance(paths, list | tuple) or not paths or not all(isinstance(path, str) for path in paths):
        raise UserError(f"a distractor is the path of an image, or a list of paths; found {reprlib.repr(named)}")
    return tuple(paths), None


def _groups(
    rows: Sequence[Row], samples: Sequence[Sample], distractors: Sequence[tuple[Content, ...] | None]
) -> list[list[int]]:
    """Places of the rows that are equal but for their id and response, group by group."""
    groups: dict[Any, list[int]] = {}
    for place, (row, sample, others) in enumerate(zip(rows, samples, distractors, strict=True)):
        name = sample.id if isinstance(row, Sample) else None
        groups.setdefault((name, sample.content, sample.label, sample.labels, others), []).append(place)
    return list(groups.values())


def _others(
    samples: Sequence[Sample],
    distractors: Sequence[tuple[Content, ...] | None],
    groups: Sequence[Sequence[int]],
    settings: RewardSettings,
) -> list[Sequence[Content]]:
    """What else each description is asked on: what its row names, else other groups of the batch, as in training."""
    count = settings.contrastive if Aspect.CONSISTENCY in settings.aspects else 0
    firsts = [samples[places[0]] for places in groups]
    others: list[Sequence[Content]] = [()] * len(samples)
    for number, places in enumerate(groups):
        named, own = distractors[places[0]], firsts[number].content
        found = other_contents(firsts, number, count) if named is None else [c for c in named if c != own][:count]
        if len(found) < count:
            raise UserError(
                f"row {places[0]}: reward.contrastive asks about {count} other images and there are {len(found)}: name "
                "them in the row's 'distractors' (emor3 data export --distractors), or set contrastive to 0"
            )
        for place in places:
            others[place] = found
    return others
