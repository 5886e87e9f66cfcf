"""The one place that turns settings into a judge.

A new judge is a module beside this one, a name in `JudgeBlock` and a line in `build_judge`.
"""

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
from emor3.method.types import Judge

if TYPE_CHECKING:
    from trl.generation.vllm_generation import VLLMGeneration


def build_judge(
    settings: JudgeBlock, model: PreTrainedModel, processor: ProcessorMixin, vllm: "VLLMGeneration | None" = None
) -> Judge:
    """The judge that a recipe names, the same number of forward passes on every rank.

    `model` is the local model that judges: the policy, the start model or the moving average, as `settings.model` says;
    a server needs none. `vllm` is the engine that samples the policy's rollouts, if there is one.
    """
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
    return MovingAverage(policy, settings.ema_decay, checkpoints, checkpoint)
