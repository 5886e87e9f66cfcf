"""The vLLM judge against a stand-in with the API of TRL's generation object, whose shape is read from TRL itself."""

import inspect

import pytest
import torch
from trl.generation.vllm_generation import VLLMGeneration

from emor3.data import load_samples
from emor3.generation import encode
from emor3.modeling import load
from emor3.reflection import coherence_question, consistency_question
from emor3.taxonomy import MIKELS8
from emor3.vllm_judge import VllmJudge


class Engine:
    """Takes what TRL's object takes, chooses the last candidate, and remembers how it was called."""

    def __init__(self, tokenizer):
        self.tokenizer = tokenizer
        self.temperature, self.max_completion_length = 1.0, 96
        self.generation_kwargs = {"logit_bias": {5: -100.0}}
        self.calls = []

    def generate(self, prompts, images, num_generations, profiler=None):
        self.calls.append({**vars(self), "prompts": prompts, "images": images, "num_generations": num_generations})
        if self.generation_kwargs["structured_outputs"]["choice"] == ["fail"]:
            raise RuntimeError("engine died")
        choice = self.generation_kwargs["structured_outputs"]["choice"][-1]
        ids = [*self.tokenizer(choice, add_special_tokens=False).input_ids, self.tokenizer.eos_token_id]
        assert len(ids) <= self.max_completion_length
        return prompts, [ids for _ in prompts], [[[0.0]] * len(ids) for _ in prompts], None


@pytest.fixture(scope="module")
def processor(random_checkpoint):
    return load(random_checkpoint)[1]


@pytest.fixture
def engine(processor):
    return Engine(processor.tokenizer)


@pytest.fixture(scope="module")
def asked(scenes):
    images = [sample.image for sample in load_samples(scenes, split="test")[:2]]
    return [
        coherence_question("A dog.", "Joy.", MIKELS8),
        consistency_question((images[0],), "A dog."),
        consistency_question((images[1],), "A cat and more."),
    ]


def test_the_stand_in_takes_and_returns_what_trl_does():
    assert (
        inspect.signature(Engine.generate).parameters.keys()
        == inspect.signature(VLLMGeneration.generate).parameters.keys()
    )
    read_at_call_time = inspect.getsource(VLLMGeneration.generate)
    for name in ("temperature", "max_completion_length", "generation_kwargs"):
        assert f"self.{name}" in read_at_call_time
    assert 'generation_kwargs.get("structured_outputs"), dict)' in read_at_call_time
    assert "return prompt_ids, completion_ids, logprobs, logprob_token_ids" in read_at_call_time


def test_each_set_of_candidates_is_one_greedy_call_under_its_choice(processor, engine, asked):
    replies = VllmJudge(engine, processor).answer(asked)
    assert [reply.text for reply in replies] == [MIKELS8.labels[-1], "No", "No"]
    assert [call["generation_kwargs"] for call in engine.calls] == [
        {"structured_outputs": {"choice": list(MIKELS8.labels)}},
        {"structured_outputs": {"choice": ["Yes", "No"]}},
    ]
    assert [(call["temperature"], call["num_generations"]) for call in engine.calls] == [(0.0, 1)] * 2


def test_prompts_are_unpadded_token_ids_with_one_image_each_where_there_is_one(processor, engine, asked):
    VllmJudge(engine, processor).answer(asked)
    text, pictures = engine.calls
    assert text["images"] is None
    assert [len(images) for images in pictures["images"]] == [1, 1]
    for prompt, question in zip(pictures["prompts"], asked[1:], strict=True):
        alone = encode(processor, [(question.images, question.text)])["input_ids"][0]
        assert torch.equal(torch.tensor(prompt), alone)


def test_the_settings_of_the_rollouts_come_back_even_after_an_error(processor, engine, asked):
    judge = VllmJudge(engine, processor)
    judge.answer(asked)
    with pytest.raises(RuntimeError, match="engine died"):
        judge._choose(asked[:1], ["fail"])
    assert (engine.temperature, engine.max_completion_length) == (1.0, 96)
    assert engine.generation_kwargs == {"logit_bias": {5: -100.0}}


def test_questions_of_one_kind_are_one_kind_of_work(processor, engine, asked):
    assert [VllmJudge(engine, processor).work(question) for question in asked] == [(False, 8), (True, 2), (True, 2)]
