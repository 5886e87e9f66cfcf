"""The policy as a judge in the vLLM engine that samples the rollouts: no second engine, no second weight sync.

Written against TRL 1.16's generation object and tested on a stand-in that speaks its API. Not yet run on a GPU.
"""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from transformers import ProcessorMixin

from emor3.generation import encode
from emor3.images import open_image
from emor3.types import Question, Reply

if TYPE_CHECKING:
    from trl.generation.vllm_generation import VLLMGeneration


class VllmJudge:
    """The most probable reply among the candidates of each question, decoded under their constraint."""

    def __init__(self, generation: "VLLMGeneration", processor: ProcessorMixin) -> None:
        self.generation = generation
        self.processor = processor

    def work(self, question: Question) -> tuple[int, int]:
        """Images to encode, and the number of candidates: each set of candidates is one call."""
        return len(question.images), len(question.candidates)

    def answer(self, questions: Sequence[Question]) -> list[Reply]:
        """One reply per question, in order, without probabilities."""
        replies: dict[Question, Reply] = {}
        for candidates in dict.fromkeys(question.candidates for question in questions):
            asked = [question for question in questions if question.candidates == candidates]
            replies |= dict(zip(asked, self._choose(asked, candidates), strict=True))
        return [replies[question] for question in questions]

    def _choose(self, asked: Sequence[Question], candidates: Sequence[str]) -> list[Reply]:
        inputs = encode(self.processor, [(question.images, question.text) for question in asked])
        rows = zip(inputs["input_ids"], inputs["attention_mask"].bool(), strict=True)
        opened = {path: open_image(path) for path in {path for question in asked for path in question.images}}
        images = [[opened[path] for path in question.images] or None for question in asked]
        tokenizer = self.processor.tokenizer
        longest = max(len(tokenizer(candidate, add_special_tokens=False).input_ids) for candidate in candidates)
        choice = {
            "temperature": 0.0,
            "max_completion_length": longest + 1,  # and the end of turn
            "generation_kwargs": {"structured_outputs": {"choice": list(candidates)}},
        }
        with settings_of(self.generation, choice):
            _, completions, _, _ = self.generation.generate(
                prompts=[ids[real].tolist() for ids, real in rows],
                images=images if opened else None,
                num_generations=1,  # the questions are all distinct
            )
        return [Reply(text.strip()) for text in tokenizer.batch_decode(completions, skip_special_tokens=True)]


@contextmanager
def settings_of(generation: Any, changed: dict[str, Any]) -> Iterator[None]:
    """Sampling settings of TRL's object, which reads them at each call; those of the rollouts come back afterwards."""
    before = {name: getattr(generation, name) for name in changed}
    vars(generation).update(changed)
    try:
        yield
    finally:
        vars(generation).update(before)
