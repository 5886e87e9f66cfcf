"""Build the judge of a training run from its settings, here alone.

A new judge is a module beside this one, a name in `JudgeBlock` and a line in `build_judge`.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from accelerate.utils import gather_object
from transformers import PreTrainedModel, ProcessorMixin

from emor3.errors import UserError
from emor3.judges.endpoint import EndpointJudge
from emor3.judges.local import GenerateJudge, ScoreJudge
from emor3.judges.lockstep import InStepJudge
from emor3.judges.moving_average import MovingAverage
from emor3.judges.settings import JudgeBlock
from emor3.judges.vllm import VllmJudge
from emor3.method.types import Aspect, Judge, Question, Reply
from emor3.scoring.own import OwnJudge, source_digest

if TYPE_CHECKING:
    from trl.generation.vllm_generation import VLLMGeneration


@dataclass(frozen=True)
class JudgeByAspect:
    """Two judges: one looks at descriptions, the other reads the reasoning."""

    consistency: Judge
    coherence: Judge

    def answer(self, questions: Sequence[Question]) -> list[Reply]:
        """Replies to the questions, in order. Both judges are called, also without a question: ranks stay in step."""
        replies: dict[Question, Reply] = {}
        for aspect, judge in ((Aspect.CONSISTENCY, self.consistency), (Aspect.COHERENCE, self.coherence)):
            asked = [question for question in questions if question.aspect is aspect]
            replies |= zip(asked, judge.answer(asked), strict=True)
        return [replies[question] for question in questions]


def with_self_answer(
    judge: Judge,
    settings: JudgeBlock,
    policy: PreTrainedModel,
    processor: ProcessorMixin,
    vllm: "VLLMGeneration | None" = None,
) -> Judge:
    """The judge, with the policy in its place on coherence if the settings say so.

    Vision-SR1 (arXiv 2508.19652): the policy answers from its own description and feeling, without the image, so that
    they must hold what *it* needs. R_coh is 1 if it answers the truth, or with `reward.soft` its probability of it.
    """
    if settings.coherence is None:
        return judge
    own = settings.model_copy(update={"model": settings.coherence, "endpoint": None})
    return JudgeByAspect(judge, build_judge(own, policy, processor, vllm))


def recorded_judge(settings: JudgeBlock, own: OwnJudge | None) -> JudgeBlock:
    """The settings with class and source of a judge that was handed over, as a run records them.

    Raises UserError if there is none and one is asked for, or if it is not the one that the settings name.
    """
    if own is None:
        if settings.model == "own":
            raise UserError("judge.model own is a judge that is handed over in Python: emor3.train(recipe, judge=...)")
        return settings
    if settings.model not in ("policy", "own"):
        raise UserError(f"a judge is handed over and judge.model is {settings.model}: set it to own, or hand over none")
    now = {"name": own.name, "sha256": source_digest(own.judge)}
    for key, value in now.items():
        if getattr(settings, key) not in (None, value):
            raise UserError(f"the judge handed over has {key} {value} and the recipe names {getattr(settings, key)}")
    return settings.model_copy(update={"model": "own", **now})


def build_judge(
    settings: JudgeBlock,
    model: PreTrainedModel,
    processor: ProcessorMixin,
    vllm: "VLLMGeneration | None" = None,
    own: Judge | None = None,
) -> Judge:
    """The judge that a recipe names, padded to the same number of forward passes on every rank.

    `model` is the local model that judges, with its processor: the policy, the start model, the moving average or
    another one, as `settings.model` says; a server needs none. `vllm` is the engine that samples the policy's rollouts,
    if there is one, and `own` the judge that was handed over, which each rank asks by itself, as a server.
    """
    if settings.model == "own":
        assert own is not None, "checked by recorded_judge"
        return own
    if settings.endpoint is not None:
        return EndpointJudge.from_settings(settings.endpoint)  # each rank by itself: no forward passes to pad
    if settings.model == "policy" and vllm is not None and settings.backend == "generate":
        return InStepJudge(VllmJudge(vllm, processor), gather_object)
    backend = ScoreJudge if settings.backend == "score" else GenerateJudge
    return InStepJudge(backend(model, processor, settings.batch_size), gather_object)


def build_average(
    settings: JudgeBlock, policy: PreTrainedModel, *, lora: bool, checkpoints: Path, checkpoint: Path | None
) -> MovingAverage | None:
    """The moving average of the policy if it judges, as it was at the checkpoint. Raises UserError for adapters."""
    if settings.model != "ema":
        return None
    if lora:
        raise UserError("judge.model ema follows all weights of the policy: train without model.lora, or use reference")
    return MovingAverage(policy, settings.ema_decay, checkpoints, checkpoint, settings.every)
