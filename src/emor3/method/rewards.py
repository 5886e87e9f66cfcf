"""The reward of one completion:

R_overall = (1 - l1 - l2) * R_acc + l1 * R_RER + l2 * R_format,   R_RER = (R_cons + R_coh) / 2   (maximum 1.0)

`formula: released` is what the authors' code pays instead: l1 for each reflection (maximum 1 + l1) and half a point
for a reply that cannot be read. Beyond the paper, each a switch: soft verdicts, a description that must fit its own
image better than others (contrastive), and further parts whose weights are taken from accuracy's: votes, attributes,
stated confidence, and those of one's own (`emor3.scoring.own`). What depends on the whole group is settled in
`group_rewards`.
"""

import re
from collections.abc import Callable, Mapping
from typing import Any, Literal, Self

from pydantic import Field, field_validator, model_validator

from emor3.errors import UserError
from emor3.method.labels import LabelSet, affirmed, fold_text, match
from emor3.method.reflection import read_yes_no
from emor3.method.thinking import CONFIDENCE, Thinking, load_template, read_conclusion
from emor3.method.types import Aspect, EmotionalThought, Finding, Reflection, Reply, RewardBreakdown, Sample, Verdict
from emor3.settings import MOST, Block, without_former

Formula = Literal["paper", "released"]

FURTHER = ("votes", "attributes", "confidence")
"""Parts beyond the paper, by the name of their weight."""

PAPER = {"reflective": 0.1, "soft": False, "contrastive": 0}
"""The paper's settings where the defaults are others, for what docs/reflection_study.md and docs/results.md found."""

REFLECTIONS = frozenset(aspect.value for aspect in Aspect)
"""Parts that a judge decides, which are there or were not run."""

FORMER = {"masked": False, "agreement": 0.0, "conclusion": 0.0}
"""Settings that helped in no world and are gone (docs/log.md), by the value at which they did nothing."""

FORMS = ("relative", "trust", "anneal")
"""Switches that change how R_RER is paid."""

_WORD = re.compile(r"[^\W_]+")
_PART_NAME = re.compile(r"[a-z][a-z0-9_]{0,39}")
_FUNCTION = re.compile(r"[A-Za-z_]\w*(?:\.[A-Za-z_]\w*)*:[A-Za-z_]\w*")


class OwnPart(Block):
    """A part of the reward of one's own: a Python function, which a recipe names and never imports by itself."""

    function: str
    """The function as `module:function`; `emor3 train --allow-code module:function` imports it."""
    weight: float = Field(gt=0, le=1)
    """Weight of the part, taken from accuracy's."""
    sha256: str | None = None
    """SHA-256 of the function's source text. A run records it; if it is given, another text is refused."""

    @field_validator("function")
    @classmethod
    def _names_a_function(cls, function: str) -> str:
        if not _FUNCTION.fullmatch(function):
            raise ValueError(f"a function is named as module:function, as in my_rewards:brevity; found {function!r}")
        return function


class RewardSettings(Block):
    """Weights and switches. GRPO only: reflective 0 and format 0. SET only: reflective 0. The paper: see `PAPER`.

    Raises UserError for weights that are negative, not a number or above 1 in sum.
    """

    reflective: float = 0.3
    """l1, the weight of the Reflective Emotional Reward (the paper: 0.1)."""
    format: float = 0.1
    """l2, the weight of the grammar of Structured Emotional Thinking."""
    consistency: bool = True
    """Whether R_RER holds visual-text consistency; with one of the two off, R_RER is the other one alone."""
    coherence: bool = True
    """Whether R_RER holds emotional coherence."""
    formula: Formula = "paper"
    """How parts become one reward: as in the paper, or as the authors' released code pays it."""
    soft: bool = True
    """Pay the judge's probability of a favourable verdict, where it gives one, instead of 0 or 1 (the paper: false)."""
    contrastive: int = 2
    """Other images of the batch that a description must not fit; what it earns is counted against the best of them.

    The paper asks about none (0), which pays descriptions that fit every image (docs/results.md, attacks).
    """
    votes: float = 0.0
    """Weight of: the group's answers against the human votes, by the Brier score (see `vote_values`)."""
    attributes: float = 0.0
    """Weight of: share of the picture's annotated words that step 1 names, if there are any."""
    confidence: float = 0.0
    """Weight of: how near the stated confidence is to the answer's being right, by the Brier score.

    It wants `thinking: confidence`, and at most accuracy's weight.
    """
    own: dict[str, OwnPart] = Field(default_factory=dict)
    """Parts of one's own by the name that records and metrics call them by ([api.md](api.md))."""
    advantages: Literal["together", "separate"] = "together"
    """Normalise the weighted sum inside its group (GRPO), or each part by itself before they are summed (GDPO)."""
    relative: bool = False
    """Pay R_RER to right answers only, relative to the other right ones of the group (see `relative_values`)."""
    trust: bool = False
    """Pay less R_RER in groups whose wrong answers earn more of it than the right ones (see `trust_weight`)."""
    anneal: bool = False
    """Pay less R_RER the longer a run trains (see `annealed`)."""
    placebo: bool = False
    """For experiments: verdicts permuted inside each group, so that everything but their meaning stays."""

    @model_validator(mode="before")
    @classmethod
    def _without_former_settings(cls, given: Any) -> Any:
        return without_former(given, FORMER, "reward")

    @field_validator("contrastive")
    @classmethod
    def _holds_usable_numbers(cls, value: int) -> int:
        """Replaces the check of all blocks: weights are checked together below, and refused in one message."""
        if value > MOST:
            raise ValueError(f"must be a number of at most {MOST}")
        return value

    @field_validator("own")
    @classmethod
    def _has_names_of_its_own(cls, own: dict[str, OwnPart]) -> dict[str, OwnPart]:
        taken = {"accuracy", "reflective", "format", *Aspect, *FURTHER}
        for name in own:
            if name in taken:
                raise ValueError(f"{name!r} is a part that emor3 has: give yours another name")
            if not _PART_NAME.fullmatch(name):
                raise ValueError(f"a part has a name of small letters, digits and _, at most 40; found {name!r}")
        return own

    @model_validator(mode="after")
    def _weighs_one_at_most(self) -> Self:
        given = {name: getattr(self, name) for name in ("reflective", "format", *FURTHER)}
        given |= {name: part.weight for name, part in self.own.items()}
        for name, weight in given.items():
            if not 0 <= weight <= 1:
                raise UserError(f"reward weight {name!r} is {weight}: it must be a number from 0 to 1")
        if sum(given.values()) > 1 + 1e-9:
            listed = " + ".join(f"{name} {weight}" for name, weight in given.items() if weight)
            raise UserError(f"reward weights {listed} exceed 1")
        if self.contrastive < 0:
            raise UserError(f"reward setting 'contrastive' is {self.contrastive}: it counts images, from 0")
        return self

    @model_validator(mode="after")
    def _pays_no_one_for_being_wrong(self) -> Self:
        """With more weight than accuracy's, an answer right by chance 0.1 would earn less than one wrong on purpose."""
        left = weights(self)["accuracy"]
        if self.confidence > left + 1e-9:
            raise UserError(
                f"reward.confidence {self.confidence:g} is more than the {left:g} that is left for accuracy: answers "
                "that are wrong on purpose, and say so, would be paid more than some that try; lower it"
            )
        return self

    @model_validator(mode="after")
    def _has_a_form_that_fits(self) -> Self:
        forms = [name for name in FORMS if getattr(self, name)]
        asked = [*forms, *(["placebo"] if self.placebo else ())] if not self.aspects else []
        if asked:
            raise UserError(
                f"reward.{asked[0]} changes how reflection is paid, and none is paid: leave one of both out"
            )
        if forms and self.formula == "released":
            raise UserError(f"reward.{forms[0]} is no part of the released formula: leave reward.formula at paper")
        scaled = [name for name in forms if name != "relative"]
        if scaled and self.advantages == "separate":
            raise UserError(
                f"reward.{scaled[0]} scales R_RER in a group, and reward.advantages separate divides by its deviation: "
                "the scale would be lost, choose one of both"
            )
        return self

    @property
    def aspects(self) -> frozenset[Aspect]:
        """The reflections that R_RER pays; only these are asked in training."""
        switches = {Aspect.CONSISTENCY: self.consistency, Aspect.COHERENCE: self.coherence}
        return frozenset(aspect for aspect, on in switches.items() if on and self.reflective > 0)


def check_thinking(settings: RewardSettings, thinking: Thinking, template: str | None = None) -> None:
    """Raise UserError if a part is paid that this way of thinking, or its prompt template, does not ask for."""
    if settings.confidence == 0:
        return
    paid = f"reward.confidence {settings.confidence:g} pays for a stated confidence, and"
    if thinking != CONFIDENCE:
        raise UserError(f"{paid} thinking: {thinking} asks for none: set thinking: {CONFIDENCE}, or leave it out")
    if template is not None and f"<{CONFIDENCE}>" not in load_template(template):
        raise UserError(
            f"{paid} the template {template} asks for none: have it ask for <{CONFIDENCE}>0.7</{CONFIDENCE}>"
        )


def forms_on(recorded: Mapping[str, Any]) -> list[str]:
    """The forms of the reward that are on in recorded settings, which may be older than some of them.

    >>> forms_on({"soft": True, "trust": True, "anneal": False, "advantages": "separate"})
    ['trust', 'separate advantages']
    """
    separate = ["separate advantages"] if recorded.get("advantages") == "separate" else []
    return [*(name for name in FORMS if recorded.get(name) is True), *separate]


def weights(settings: RewardSettings) -> dict[str, float]:
    """Weight of each raw part; the total is the sum of weight times part. Further parts are in it if paid.

    With both reflections switched off their weight goes to accuracy, so that the maximum stays 1.
    """
    paid = settings.aspects
    reflective = settings.reflective if paid else 0.0
    share = reflective if settings.formula == "released" else reflective / max(1, len(paid))
    further = {name: getattr(settings, name) for name in FURTHER if getattr(settings, name) > 0}
    further |= {name: part.weight for name, part in settings.own.items()}
    return {
        "accuracy": 1 - reflective - settings.format - sum(further.values()),
        "format": settings.format,
        **{aspect.value: share if aspect in paid else 0.0 for aspect in Aspect},
        **further,
    }


def paid_weights(settings: RewardSettings) -> dict[str, float]:
    """Weights of the parts that are paid: one reward function each, for trainers that sum them."""
    paid = {aspect.value for aspect in settings.aspects}
    return {name: weight for name, weight in weights(settings).items() if name in paid or name not in REFLECTIONS}


def judge_failed(finding: Finding | None) -> bool:
    """Whether a question was asked and got no reply."""
    return finding is not None and finding.verdict is Verdict.ERROR


def verdict_value(verdict: Verdict, formula: Formula = "paper") -> float:
    """What a verdict earns: 1 if the judge supports the text, else 0; half a point for noise if released.

    Not for `Verdict.ERROR`, which is no verdict on the text: ask `judge_failed` first.
    """
    if verdict is Verdict.UNREADABLE and formula == "released":
        return 0.5
    return float(verdict is Verdict.SUPPORTED)


def predicted_label(thought: EmotionalThought, labels: LabelSet) -> str | None:
    """The label of the set that the answer is, spelt as in the set; None is the outcome "unparsed", never a class."""
    return None if thought.answer is None else match(thought.answer, labels)


def score(
    thought: EmotionalThought, sample: Sample, reflection: Reflection, settings: RewardSettings
) -> RewardBreakdown:
    """Raw parts and their weighted total for one completion on a sample.

    What depends on the whole group (votes) is None here and left out of the total; `with_votes` adds it. So are parts
    of one's own, which `emor3.scoring.own` adds, and a part on which the judge failed, because that is not the policy's
    failure.
    Raises UserError if the sample's label is not in its set, or a reflection that carries weight was never run.

    Right answer and form; the judge supports step 1 but reads another label: 0.6 + 0.1 + 0.3 * (1 + 0) / 2.

    >>> from emor3.method.thinking import parse
    >>> moods = LabelSet("moods", ("fear", "joy"))
    >>> thought = parse(r"<step1>fog</step1><step2>tense</step2><step3>negative</step3>\\boxed{fear}")
    >>> found = Reflection(Finding(Verdict.SUPPORTED), Finding(Verdict.REFUTED))
    >>> reward = score(thought, Sample("1", ("fog.jpg",), "fear", moods), found, RewardSettings())
    >>> reward.parts
    {'accuracy': 1.0, 'format': 1.0, 'consistency': 1.0, 'coherence': 0.0}
    >>> round(reward.total, 4)
    0.85
    """
    label, labels = sample.label, sample.labels
    if label not in labels.labels:
        raise UserError(f"label {label!r} is not in the set {labels.name} ({', '.join(labels.labels)})")
    part_weights = weights(settings)
    parts: dict[str, float | None] = {
        "accuracy": float(predicted_label(thought, labels) == label),
        "format": float(thought.problem is None),
        "consistency": consistency_value(reflection.consistency, settings),
        "coherence": coherence_value(reflection.coherence, label, settings),
    }
    further: dict[str, Callable[[], float | None]] = {
        "votes": lambda: None,
        "attributes": lambda: attribute_recall(thought, sample),
        "confidence": lambda: confidence_value(thought.confidence, parts["accuracy"] == 1),
    }
    parts |= {name: further[name]() for name in part_weights if name in further}
    parts |= dict.fromkeys(settings.own)
    ran = (("consistency", reflection.consistency), ("coherence", reflection.coherence))
    failed = {name for name, finding in ran if finding is not None and parts[name] is None}
    scored = {name: weight for name, weight in part_weights.items() if name not in failed}
    return RewardBreakdown(weighted_total(parts, scored), parts)


def consistency_value(finding: Finding | None, settings: RewardSettings) -> float | None:
    """R_cons: the verdict on the own image, less the best verdict on other images if any were asked about.

    None if it never ran, or the judge failed on one of the images.

    Soft verdicts: Yes with 0.9 on the own image and with 0.3 on another one, so 0.9 - 0.3.

    >>> own, other = (Reply("Yes", {"Yes": share, "No": 1 - share}) for share in (0.9, 0.3))
    >>> found = Finding(Verdict.SUPPORTED, reply=own, distractors=(other,))
    >>> round(consistency_value(found, RewardSettings()), 4)
    0.6
    """
    if finding is None or judge_failed(finding):
        return None
    distractors = finding.distractors[: settings.contrastive]
    if any(reply.error is not None for reply in distractors):
        return None
    own = _yes(finding.verdict, finding.reply, settings)
    elsewhere = [_yes(read_yes_no(reply.text), reply, settings) for reply in distractors]
    return max(0.0, own - max(elsewhere, default=0.0))


def _yes(verdict: Verdict, reply: Reply | None, settings: RewardSettings) -> float:
    if settings.soft and reply is not None and reply.probabilities is not None:
        return reply.probabilities["Yes"]
    return verdict_value(verdict, settings.formula)


def coherence_value(finding: Finding | None, label: str, settings: RewardSettings) -> float | None:
    """R_coh: whether the judge reads the true label from the reasoning, or how probable it finds it.

    None if it never ran or the judge failed.
    """
    if finding is None or judge_failed(finding):
        return None
    if settings.soft and finding.reply is not None and finding.reply.probabilities is not None:
        return finding.reply.probabilities[label]
    return verdict_value(finding.verdict, settings.formula)


def label_read(coherence: Finding | None, labels: LabelSet) -> str | None:
    """The label that the judge reads from steps 1 and 2; None if it was not asked or names none."""
    return affirmed(coherence.reply.text, labels) if coherence and coherence.reply else None


def signs_held(thought: EmotionalThought, sample: Sample) -> tuple[bool | None, bool | None]:
    """Whether step 3 claims the polarity and the arousal of the true label; None if that has no fixed one."""
    polarity, arousal = read_conclusion(thought.conclusion)
    true = (sample.labels.polarity.get(sample.label), sample.labels.arousal.get(sample.label))
    return None if true[0] is None else polarity == true[0], None if true[1] is None else arousal == true[1]


def attribute_recall(thought: EmotionalThought, sample: Sample) -> float | None:
    """Share of the annotated words that step 1 names as whole words; absent attributes are unknown, not wrong."""
    known = [value for value in sample.attributes.values() if not isinstance(value, float | int)]
    words = [word for value in known for word in ([value] if isinstance(value, str) else value)]
    if not words:
        return None
    named = _plain(thought.trigger or "")
    return sum(_plain(word) in named for word in words) / len(words)


def confidence_value(stated: float | None, right: bool) -> float:
    """1 - (c - right)^2, the Brier score as a reward, which is best on average if c is the chance of being right.

    0 without a readable number: never more than any number earns.

    >>> [round(confidence_value(stated, right=True), 2) for stated in (1.0, 0.7, 0.0, None)]
    [1.0, 0.91, 0.0, 0.0]
    """
    return 0.0 if stated is None else 1 - (stated - right) ** 2


def _plain(text: str) -> str:
    """Words alone with one blank around each, so that a phrase is found as whole words."""
    return f" {' '.join(_WORD.findall(fold_text(text)))} "


def weighted_total(parts: Mapping[str, float | None], part_weights: Mapping[str, float]) -> float:
    """Sum of weight times part; a further part that is None is left out.

    Raises UserError for a reflection that carries weight and was never run.
    """
    total = 0.0
    for name, weight in part_weights.items():
        part = parts[name]
        if weight == 0 or (part is None and name not in REFLECTIONS):
            continue
        if part is None:
            raise UserError(
                f"the {name} reflection was never run but has weight {weight:g}: run it or set its weight to 0"
            )
        total += weight * part
    return total


def failed_parts(reward: RewardBreakdown, settings: RewardSettings) -> list[str]:
    """The reflections that something is paid for and that the judge failed to judge: its failure, not the policy's.

    Once a group is settled, a part that failed for one of its completions is such a part of all of them.
    """
    return [aspect.value for aspect in Aspect if aspect in settings.aspects and reward.parts[aspect.value] is None]


def reflective(parts: Mapping[str, float | None]) -> float | None:
    """R_RER = (R_cons + R_coh) / 2; None if either reflection was never run or failed."""
    consistency, coherence = parts["consistency"], parts["coherence"]
    return None if consistency is None or coherence is None else (consistency + coherence) / 2
