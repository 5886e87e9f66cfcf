"""What is measured on held-out samples: the prompt, parser and checks of `emor3 evaluate`, decoded greedily.

All ranks of a distributed run complete equally many samples each, and all get the figures of all of them.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from statistics import fmean

from accelerate import PartialState
from accelerate.utils import gather_object
from transformers import PreTrainedModel, ProcessorMixin

from emor3.data.folders import Source
from emor3.data.prompt_lengths import check_context
from emor3.errors import UserError
from emor3.heldout.settings import Metric
from emor3.judges.local import evaluating
from emor3.method.rewards import predicted_label
from emor3.method.thinking import Thinking, parse, sample_prompt
from emor3.method.types import Prediction, Sample
from emor3.models.generation import complete_samples, said_by
from emor3.stats.classification import is_correct
from emor3.stats.figures import GIVEN
from emor3.stats.measures import Check, keeps_format
from emor3.tiny.folders import is_drawn
from emor3.tiny.perception import DrawnTruth

COMPLETION_TOKENS = 256
"""Tokens at which a completion is cut if training makes none: what `emor3 evaluate` takes."""


@dataclass(frozen=True)
class Measurement:
    """What is asked of a policy, and what is measured on its answers."""

    samples: Sequence[Sample]
    checks: Mapping[str, Check]
    """By the name of the figure, which is the share of predictions that pass."""
    thinking: Thinking
    template: str
    max_new_tokens: int
    batch_size: int
    """Samples in a batch on each process."""

    def figures(self, model: PreTrainedModel, processor: ProcessorMixin) -> dict[str, float]:
        """Each figure of the policy, from 0 to 1. All ranks must call this; no random state is touched."""
        predictions = self._predictions(model, processor)
        return {name: fmean(bool(check(p)) for p in predictions) for name, check in self.checks.items()}

    def check_fit(self, model: PreTrainedModel, processor: ProcessorMixin) -> None:
        """Raise UserError if a prompt and its completion do not fit into the model's context."""
        turns = ((sample, sample_prompt(sample, self.template), self.max_new_tokens) for sample in self.samples)
        check_context(model, processor, turns)

    def _predictions(self, model: PreTrainedModel, processor: ProcessorMixin) -> list[Prediction]:
        state = PartialState()
        count = -(-len(self.samples) // state.num_processes)
        filled = [*self.samples, *[self.samples[0]] * (count * state.num_processes - len(self.samples))]
        first = state.process_index * count
        with evaluating(model):
            own = complete_samples(
                model,
                processor,
                filled[first : first + count],  # as many on each rank: a sharded model waits for all
                self.template,
                max_new_tokens=self.max_new_tokens,
                batch_size=self.batch_size,
                in_step=state.num_processes > 1,
            )
        texts = map(said_by(processor, self.thinking), gather_object(own)[: len(self.samples)])
        return [self._prediction(sample, text) for sample, text in zip(self.samples, texts, strict=True)]

    def _prediction(self, sample: Sample, text: str) -> Prediction:
        thought = parse(text, self.thinking)
        return Prediction(sample, text, thought, predicted_label(thought, sample.labels))


def checks_on(
    samples: Sequence[Sample], sources: Sequence[Source], thinking: Thinking, metric: Metric
) -> dict[str, Check]:
    """Checks that held-out samples of these sources allow, by figure.

    Raises UserError if the metric that chooses the best policy is not among them.
    """
    checks: dict[str, Check] = {"accuracy": is_correct, "format": keeps_format}
    folders = [source.folder for source in sources]
    if "step 3" in GIVEN[thinking] and all(map(is_drawn, folders)):
        checks["perception"] = DrawnTruth(folders).exact
    if metric not in checks:
        raise UserError(
            f"evaluation.metric {metric}: needs three steps on drawn pictures (embedded:…), whose factors are known; "
            f"these data and this way of thinking give {', '.join(checks)}"
        )
    return checks
