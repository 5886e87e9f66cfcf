"""The vLLM path against a stand-in with the API of TRL's generation object, whose shape is read from TRL itself."""

import inspect

import pytest
from trl import GRPOConfig
from trl.generation.vllm_generation import VLLMGeneration

from emor3.data.folders import load_samples
from emor3.judges.vllm import VllmJudge
from emor3.method.labels import MIKELS8, LabelSet
from emor3.method.reflection import coherence_question, consistency_question
from emor3.models.architectures import limit_pixels
from emor3.models.checkpoints import load
from emor3.models.generation import encode
from emor3.training.dataset import prompt_dataset
from emor3.training.trainer import EmoTrainer

SETTINGS = {
    "temperature": 1.0,
    "repetition_penalty": 1.1,
    "max_completion_length": 96,
    "structured_outputs_regex": "<.*",
    "generation_kwargs": {"logit_bias": {5: -100.0}},
}


class Engine:
    """Takes what TRL's object takes, spells the last candidate letter by letter, and remembers how it was called."""

    def __init__(self, tokenizer, mode="colocate"):
        self.tokenizer = tokenizer
        self.mode = mode
        vars(self).update(SETTINGS)
        self.calls = []

    def generate(self, prompts, images, num_generations, profiler=None):
        self.calls.append({**vars(self), "prompts": prompts, "images": images, "num_generations": num_generations})
        choice = self.generation_kwargs.get("structured_outputs", {"choice": ["Fine."]})["choice"][-1]
        if choice == "fail":
            raise RuntimeError("engine died")
        # Real vLLM may spell a choice in any tokens: on an unlikely "Yes" the embedded model wrote "Y", "es".
        ids = [*(self.tokenizer(letter, add_special_tokens=False).input_ids[0] for letter in choice)]
        ids.append(self.tokenizer.eos_token_id)
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
    for name in ("mode", *SETTINGS):
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
    for call in engine.calls:
        assert (call["temperature"], call["repetition_penalty"], call["num_generations"]) == (0.0, 1.0, 1)
        assert call["structured_outputs_regex"] is None  # TRL would let it go before the choice


def expanded(prompt, processor, tokens=16):
    """A prompt as vLLM reads it: each image token is replaced by those of an image, 16 for one of 64 x 64 pixels."""
    image = processor.image_token_id
    return [token for token in prompt for _ in range(tokens if token == image else 1)]


@pytest.mark.parametrize("mode", ["colocate", "server"])
def test_the_model_reads_each_question_as_it_does_without_vllm(processor, asked, mode):
    engine = Engine(processor.tokenizer, mode)
    VllmJudge(engine, processor).answer(asked)
    text, pictures = engine.calls
    assert text["images"] is None
    assert [len(images) for images in pictures["images"]] == [1, 1]
    for prompt, question in zip(pictures["prompts"], asked[1:], strict=True):
        alone = encode(processor, [(question.images, question.text)])["input_ids"][0].tolist()
        # In the process vLLM expands the prompt; on a server TRL places the image on its expanded tokens.
        assert (expanded(prompt, processor) if mode == "colocate" else prompt) == alone


@pytest.mark.parametrize("mode", ["colocate", "server"])
def test_rollouts_are_asked_for_with_prompts_that_the_model_learns_on(random_checkpoint, scenes, tmp_path, mode):
    model, processor = load(random_checkpoint)
    limit_pixels(processor, 1024)
    samples = load_samples(scenes, split="train")
    config = GRPOConfig(
        output_dir=str(tmp_path),
        num_generations=2,
        per_device_train_batch_size=4,
        report_to="none",
        use_cpu=True,
        bf16=False,
    )
    trainer = EmoTrainer(
        model=model,
        args=config,
        reward_funcs=[lambda completions, **_: [1.0] * len(completions)],
        train_dataset=prompt_dataset(samples, "steps", range(len(samples))),
        processing_class=processor,
    )
    trainer.use_vllm, trainer.vllm_mode, trainer._last_loaded_step = True, mode, 0  # as with vLLM after a sync
    trainer.vllm_generation = engine = Engine(processor.tokenizer, mode)
    batch = trainer._generate_and_score_completions([trainer.train_dataset[place] for place in (0, 0, 1, 1)])
    (call,) = engine.calls
    learnt = [ids[mask.bool()].tolist() for ids, mask in zip(batch["prompt_ids"], batch["prompt_mask"], strict=True)]
    # 1,024 pixels are 4 tokens.
    assert [expanded(p, processor, 4) if mode == "colocate" else p for p in call["prompts"]] == learnt
    assert [[image.size for image in images] for images in call["images"]] == [[(32, 32)]] * 4


def test_the_settings_of_the_rollouts_come_back_even_after_an_error(processor, engine, asked):
    judge = VllmJudge(engine, processor)
    judge.answer(asked)
    with pytest.raises(RuntimeError, match="engine died"):
        judge._choose(asked[:1], ["fail"])
    assert {name: getattr(engine, name) for name in SETTINGS} == SETTINGS


def test_questions_with_other_candidates_are_other_work(processor, engine, asked):
    # Each set of candidates is a call, in which a server waits for all ranks: their number would not tell sets apart.
    reversed_labels = coherence_question("A dog.", "Joy.", LabelSet("eight", MIKELS8.labels[::-1]))
    work = [VllmJudge(engine, processor).work(question) for question in [*asked, reversed_labels]]
    assert work == [(0, MIKELS8.labels), (1, ("Yes", "No")), (1, ("Yes", "No")), (0, MIKELS8.labels[::-1])]
