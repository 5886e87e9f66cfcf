"""Judges that run a vision-language model: they score the candidate replies, or generate a reply."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import TypeVar

import torch
from accelerate import PartialState
from torch import Tensor
from transformers import PreTrainedModel, ProcessorMixin

from emor3.judges.lockstep import Work
from emor3.method.types import Question, Reply
from emor3.models.generation import encode, generate
from emor3.models.prefix_cache import next_token_logits, prefill

T = TypeVar("T")


@contextmanager
def evaluating(model: PreTrainedModel) -> Iterator[None]:
    """Eval mode without gradients; afterwards every submodule has its own flag back (some are frozen on purpose)."""
    flags = {module: module.training for module in model.modules()}
    model.eval()
    try:
        with torch.no_grad():
            yield
    finally:
        for module, training in flags.items():
            module.training = training


class ScoreJudge:
    """Deterministic: the probabilities of the candidates, read off one batch of all questions.

    If the candidates of a question differ in their first token, its next-token probabilities decide. If some share it,
    whole candidates with their end of turn are scored in a second pass, so that a prefix competes with the longer one.
    """

    def __init__(self, model: PreTrainedModel, processor: ProcessorMixin, batch_size: int = 256) -> None:
        self.model = model
        self.processor = processor
        self.batch_size = batch_size
        self._known: dict[str, list[int]] = {}

    def work(self, question: Question) -> Work:
        """Images to encode, and the rows of the second pass (0 without one)."""
        first = [self._tokens(candidate)[0] for candidate in question.candidates]
        return len(question.images), len(first) if len(set(first)) < len(first) else 0

    def answer(self, questions: Sequence[Question]) -> list[Reply]:
        """One reply per question: its most probable candidate, with the probabilities of all K."""
        with evaluating(self.model):
            scores = [score for batch in self._batches(questions) for score in self._first_token_scores(batch)]
            long = [place for place, question in enumerate(questions) if self.work(question)[1]]
            rows = [(questions[place], candidate) for place in long for candidate in questions[place].candidates]
            whole = iter([score for batch in self._batches(rows) for score in self._whole_candidate_scores(batch)])
            for place in long:
                scores[place] = torch.tensor([next(whole) for _ in questions[place].candidates])
        return list(map(best_candidate, questions, scores))

    def _batches(self, rows: Sequence[T]) -> Iterator[Sequence[T]]:
        return (rows[start : start + self.batch_size] for start in range(0, len(rows), self.batch_size))

    def _first_token_scores(self, questions: Sequence[Question]) -> list[Tensor]:
        """Log-probabilities (K,) of the first token of each question's candidates."""
        inputs = encode(self.processor, [(question.images, question.text) for question in questions], thinks=False)
        images = [question.images for question in questions]
        logits = next_token_logits(self.model, inputs.to(self.model.device), images)
        next_token = logits.float().log_softmax(-1)
        return [
            next_token[row, [self._tokens(candidate)[0] for candidate in question.candidates]]
            for row, question in enumerate(questions)
        ]

    def _whole_candidate_scores(self, rows: Sequence[tuple[Question, str]]) -> list[float]:
        """Log-probability of each whole candidate and its end of turn, which makes a prefix a rival of its own."""
        replies = [self._tokens(candidate) for _, candidate in rows]
        longest = max(map(len, replies))
        asked = list(dict.fromkeys(question for question, _ in rows))
        requests = [(question.images, question.text) for question in asked]
        prompt = encode(self.processor, requests, thinks=False).to(self.model.device)
        ids = prompt["input_ids"]
        padded = torch.tensor([reply + [reply[-1]] * (longest - len(reply)) for reply in replies], device=ids.device)
        cut = {name: value[:, :-1] if value.shape == ids.shape else value for name, value in prompt.items()}
        which = torch.tensor([asked.index(question) for question, _ in rows], device=ids.device)
        ends = torch.cat([ids[which, -1:], padded], 1)
        decoded = prefill(self.model, self.model, cut).decode_inputs(which, ends, torch.ones_like(ends))
        log_probs = self.model(**decoded).logits[:, :-1].float().log_softmax(-1)
        per_token = log_probs.gather(-1, padded[:, :, None])[:, :, 0]
        lengths = torch.tensor([len(ids) for ids in replies], device=padded.device)
        counted = torch.arange(longest, device=padded.device) < lengths[:, None]
        scores: list[float] = (per_token * counted).sum(1).tolist()
        return scores

    def _tokens(self, candidate: str) -> list[int]:
        if candidate not in self._known:
            self._known[candidate] = candidate_tokens(self.processor, candidate)
        return self._known[candidate]


def candidate_tokens(processor: ProcessorMixin, candidate: str) -> list[int]:
    """Token ids of a reply and its end of turn."""
    tokenizer = processor.tokenizer
    return [*tokenizer(candidate, add_special_tokens=False).input_ids, tokenizer.eos_token_id]


def best_candidate(question: Question, scores: Tensor) -> Reply:
    """The most probable of a question's K candidates by their log-probabilities (K,), each with its share of their sum.

    The model gives Yes 0.6, No 0.2 and other tokens the rest, so Yes has 0.6 / 0.8:

    >>> from emor3.method.types import Aspect
    >>> question = Question(Aspect.CONSISTENCY, "Does it describe the image?", ("Yes", "No"))
    >>> reply = best_candidate(question, torch.tensor([0.6, 0.2]).log())
    >>> reply.text, {name: round(share, 2) for name, share in reply.probabilities.items()}
    ('Yes', {'Yes': 0.75, 'No': 0.25})
    """
    probabilities = dict(zip(question.candidates, scores.softmax(-1).tolist(), strict=True))
    return Reply(max(probabilities, key=probabilities.__getitem__), probabilities)


class GenerateJudge:
    """The paper's way: the model writes a short reply, greedily, and its text is read."""

    def __init__(
        self, model: PreTrainedModel, processor: ProcessorMixin, batch_size: int = 64, max_new_tokens: int = 16
    ) -> None:
        self.model = model
        self.processor = processor
        self.batch_size = batch_size
        self.max_new_tokens = max_new_tokens

    def work(self, question: Question) -> Work:
        """Images to encode; there is no second pass."""
        return len(question.images), 0

    def answer(self, questions: Sequence[Question]) -> list[Reply]:
        """One free-text reply per question, without probabilities."""
        requests = [(question.images, question.text) for question in questions]
        with evaluating(self.model):
            texts = generate(
                self.model,
                self.processor,
                requests,
                max_new_tokens=self.max_new_tokens,
                batch_size=self.batch_size,
                in_step=PartialState().num_processes > 1,
                thinks=False,
            )
        return [Reply(text) for text in texts]
