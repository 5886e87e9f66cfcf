"""Judges that ask a vision-language model: by the probabilities of the candidate replies, or by generating a reply."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager

import torch
from torch import Tensor
from transformers import PreTrainedModel, ProcessorMixin

from emor3.generation import encode, generate
from emor3.types import Question, Reply


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
    """Deterministic: the probabilities of the candidates, read off one forward pass over all questions.

    Where the candidates of a question differ in their first token, its next-token probabilities decide. Where some
    share it, whole candidates with their end of turn are scored in a second pass, so that lengths compare.
    """

    def __init__(self, model: PreTrainedModel, processor: ProcessorMixin, batch_size: int = 256) -> None:
        self.model = model
        self.processor = processor
        self.batch_size = batch_size

    def answer(self, questions: Sequence[Question]) -> list[Reply]:
        """One reply per question: its most probable candidate, with the probabilities of all K."""
        replies: list[Reply] = []
        with evaluating(self.model):
            for start in range(0, len(questions), self.batch_size):
                batch = questions[start : start + self.batch_size]
                replies += map(_reply, batch, self._candidate_scores(batch))
        return replies

    def _candidate_scores(self, questions: Sequence[Question]) -> list[Tensor]:
        """Log-probabilities (K,) of each question's candidates."""
        inputs = encode(self.processor, [(question.image, question.text) for question in questions])
        logits = self.model(**inputs.to(self.model.device), logits_to_keep=1).logits[:, -1]
        next_token = logits.float().log_softmax(-1)
        scores = []
        for row, question in enumerate(questions):
            first = [self._tokens(candidate)[0] for candidate in question.candidates]
            shared = len(set(first)) < len(first)
            scores.append(self._whole_candidate_scores(question) if shared else next_token[row, first])
        return scores

    def _whole_candidate_scores(self, question: Question) -> Tensor:
        """Log-probabilities (K,) of whole candidates and their end of turn, which makes a prefix a rival of its own."""
        replies = [self._tokens(candidate) for candidate in question.candidates]
        longest = max(map(len, replies))
        prompt = encode(self.processor, [(question.image, question.text)] * len(replies)).to(self.model.device)
        padded = torch.tensor([ids + [ids[-1]] * (longest - len(ids)) for ids in replies], device=self.model.device)
        extended = {
            **prompt,
            "input_ids": torch.cat([prompt["input_ids"], padded], 1),
            "attention_mask": torch.cat([prompt["attention_mask"], torch.ones_like(padded)], 1),
        }
        for name in ("mm_token_type_ids", "token_type_ids"):
            if name in prompt:
                extended[name] = torch.cat([prompt[name], torch.zeros_like(padded)], 1)
        log_probs = self.model(**extended, logits_to_keep=longest + 1).logits[:, :-1].float().log_softmax(-1)
        per_token = log_probs.gather(-1, padded[:, :, None])[:, :, 0]
        lengths = torch.tensor([len(ids) for ids in replies], device=padded.device)
        counted = torch.arange(longest, device=padded.device) < lengths[:, None]
        scores: Tensor = (per_token * counted).sum(1)
        return scores

    def _tokens(self, candidate: str) -> list[int]:
        tokenizer = self.processor.tokenizer
        return [*tokenizer(candidate, add_special_tokens=False).input_ids, tokenizer.eos_token_id]


def _reply(question: Question, scores: Tensor) -> Reply:
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

    def answer(self, questions: Sequence[Question]) -> list[Reply]:
        """One free-text reply per question, without probabilities."""
        requests = [(question.image, question.text) for question in questions]
        with evaluating(self.model):
            texts = generate(
                self.model,
                self.processor,
                requests,
                max_new_tokens=self.max_new_tokens,
                batch_size=self.batch_size,
            )
        return [Reply(text) for text in texts]
