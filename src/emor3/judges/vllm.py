"""Judges in vLLM: the policy in the engine that samples the rollouts, and the fixed judge of an evaluation.

The first needs no second engine and no second weight sync. Run with TRL 1.16 and vLLM 0.31 on a CPU
(docs/performance.md), tested on stand-ins that speak TRL's and vLLM's API. Not yet run on a GPU.
"""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import torch
from transformers import ProcessorMixin

from emor3.judges.local import best_candidate, candidate_tokens
from emor3.judges.lockstep import Work
from emor3.method.types import Question, Reply
from emor3.models.engines.vllm import VllmEngine
from emor3.models.generation import Request, chat, encode, unexpanded
from emor3.models.processors import open_images, scaled

if TYPE_CHECKING:
    from trl.generation.vllm_generation import VLLMGeneration


class VllmJudge:
    """Greedy decoding constrained to the candidates of each question."""

    def __init__(self, generation: "VLLMGeneration", processor: ProcessorMixin) -> None:
        self.generation = generation
        self.processor = processor

    def work(self, question: Question) -> Work:
        """Images to encode, and the candidates: each set of them is one call, in which a server waits for all ranks."""
        return len(question.images), question.candidates

    def answer(self, questions: Sequence[Question]) -> list[Reply]:
        """One reply per question, in order, without probabilities."""
        replies: dict[Question, Reply] = {}
        for candidates in dict.fromkeys(question.candidates for question in questions):
            asked = [question for question in questions if question.candidates == candidates]
            replies |= dict(zip(asked, self._choose(asked, candidates), strict=True))
        return [replies[question] for question in questions]

    def _choose(self, asked: Sequence[Question], candidates: Sequence[str]) -> list[Reply]:
        opened = open_images((path for question in asked for path in question.images), self.processor)
        pictures = {path: scaled(image, self.processor) for path, image in opened.items()}
        longest = max(len(candidate.encode()) for candidate in candidates)
        choice = {
            "temperature": 0.0,
            "repetition_penalty": 1.0,
            "max_completion_length": longest + 1,  # spelt byte by byte, and the end of turn
            "structured_outputs_regex": None,  # one of the rollouts would go before the choice
            "generation_kwargs": {"structured_outputs": {"choice": list(candidates)}},
        }
        with settings_of(self.generation, choice):
            _, completions, _, _ = self.generation.generate(
                prompts=self._prompts(asked),
                images=[[pictures[path] for path in q.images] or None for q in asked] if pictures else None,
                num_generations=1,  # each question is a prompt of its own
            )
        texts = self.processor.tokenizer.batch_decode(completions, skip_special_tokens=True)
        return [Reply(text.strip()) for text in texts]

    def _prompts(self, asked: Sequence[Question]) -> list[list[int]]:
        """Token ids; TRL's client of a server finds an image's place by all of its tokens."""
        if self.generation.mode == "colocate":
            chats = [chat(question.text, len(question.images)) for question in asked]
            return unexpanded(self.processor, chats, thinks=False)
        inputs = encode(self.processor, [(question.images, question.text) for question in asked], thinks=False)
        rows = zip(inputs["input_ids"], inputs["attention_mask"].bool(), strict=True)
        return [ids[real].tolist() for ids, real in rows]


class EngineJudge:
    """Deterministic: the probabilities of the candidates as `ScoreJudge` reads them, from an engine of our own."""

    def __init__(self, engine: VllmEngine) -> None:
        self.engine = engine

    def answer(self, questions: Sequence[Question]) -> list[Reply]:
        """One reply per question: its most probable candidate, with the probabilities of all K."""
        spelt = [[candidate_tokens(self.engine.processor, c) for c in question.candidates] for question in questions]
        whole = [len({ids[0] for ids in candidates}) < len(candidates) for candidates in spelt]
        short = [place for place, long in enumerate(whole) if not long]
        scores: dict[int, list[float]] = {}
        firsts = [[ids[0] for ids in spelt[place]] for place in short]
        found = self.engine.first_token_log_probs([_request(questions[place]) for place in short], firsts)
        scores.update(zip(short, found, strict=True))
        rows = [(place, ids) for place, long in enumerate(whole) if long for ids in spelt[place]]
        requests, replies = [_request(questions[place]) for place, _ in rows], [ids for _, ids in rows]
        for (place, _), score in zip(rows, self.engine.reply_log_probs(requests, replies), strict=True):
            scores.setdefault(place, []).append(score)
        return [best_candidate(question, torch.tensor(scores[place])) for place, question in enumerate(questions)]


def _request(question: Question) -> Request:
    return question.images, question.text


@contextmanager
def settings_of(generation: Any, changed: dict[str, Any]) -> Iterator[None]:
    """Sampling settings of TRL's object, which reads them at each call; those of the rollouts come back afterwards."""
    before = {name: getattr(generation, name) for name in changed}
    vars(generation).update(changed)
    try:
        yield
    finally:
        vars(generation).update(before)
