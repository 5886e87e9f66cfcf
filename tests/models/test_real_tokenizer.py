"""With the tokenizer, chat template and generation settings that users have, on a small model of Qwen2.5-VL's geometry.

Its words are cut otherwise than those of the embedded model: labels and tags of our contract are several tokens. They
are no part of the project; see `QWEN` in tests/support/places.py.
"""

from copy import deepcopy
from dataclasses import replace
from itertools import product
from pathlib import Path
from typing import Any

import pytest
import torch
from PIL import Image
from transformers import AutoModelForImageTextToText, GenerationConfig, PreTrainedModel, ProcessorMixin, set_seed

from emor3.data.folders import load_samples
from emor3.data.prompt_lengths import label_cost, text_tokens, token_counter
from emor3.judges.local import GenerateJudge, ScoreJudge
from emor3.method.labels import MIKELS8, LabelSet
from emor3.method.reflection import coherence_question, consistency_question
from emor3.method.thinking import build_prompt, parse
from emor3.method.types import Question
from emor3.models.checkpoints import load
from emor3.models.generation import encode, generate, vision_token_ids
from emor3.models.loading import load_config
from emor3.training.trainer import EmoTrainer
from places import QWEN
from steps import trainer_on
from true_size import write_checkpoint, write_files

if not (QWEN / "tokenizer.json").is_file():
    pytest.skip(f"no files of Qwen2.5-VL at {QWEN}: name a folder in EMOR3_QWEN_FILES", allow_module_level=True)

Loaded = tuple[PreTrainedModel, ProcessorMixin]
END_OF_TURN = 151645


@pytest.fixture(scope="session")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Its files, and random weights in two layers of width 32: head, vision tower and projector are all there."""
    folder = tmp_path_factory.mktemp("qwen") / "checkpoint"
    write_checkpoint(QWEN, folder, config=QWEN / "config_3b.json", layers=2, width=32)
    return folder


@pytest.fixture(scope="session")
def loaded(checkpoint: Path) -> Loaded:
    torch.manual_seed(0)
    model, processor = load(str(checkpoint), "float32")
    for weight in model.get_decoder().layers.parameters():  # or a token of the narrow model would only repeat itself
        torch.nn.init.normal_(weight, std=0.3)
    return model, processor


@pytest.fixture(scope="session")
def photograph(tmp_path_factory: pytest.TempPathFactory) -> str:
    """Of 112 x 84 pixels: 4 x 3 tokens of 28 x 28 pixels."""
    path = tmp_path_factory.mktemp("pictures") / "a.png"
    Image.effect_noise((112, 84), 60).convert("RGB").save(path)
    return str(path)


def log_probabilities(loaded: Loaded, question: Question, tokens: int | None) -> list[float]:
    """Of each candidate's first tokens (None: all and the end of turn), in rows of equal length, without a cache."""
    model, processor = loaded
    replies = [[*processor.tokenizer(one).input_ids, END_OF_TURN][:tokens] for one in question.candidates]
    found: dict[int, float] = {}
    for length in set(map(len, replies)):
        places = [place for place, reply in enumerate(replies) if len(reply) == length]
        inputs = encode(processor, [(question.images, question.text)] * len(places))
        ids = torch.tensor([replies[place] for place in places])
        for name, more in (("input_ids", ids), ("attention_mask", ids * 0 + 1), ("mm_token_type_ids", ids * 0)):
            inputs[name] = torch.cat([inputs[name], more], 1)
        with torch.no_grad():
            read = model(**inputs, logits_to_keep=length + 1).logits[:, :-1].log_softmax(-1)
        found |= dict(zip(places, read.gather(-1, ids[..., None]).sum((1, 2)).tolist(), strict=True))
    return [found[place] for place in range(len(replies))]


def test_the_published_settings_make_a_model_of_the_published_size(tmp_path: Path) -> None:
    write_files(QWEN, tmp_path / "checkpoint", config=QWEN / "config_3b.json")
    with torch.device("meta"):
        config = load_config(str(tmp_path / "checkpoint"))
        model = AutoModelForImageTextToText.from_config(config, trust_remote_code=False)
    assert sum(weight.numel() for weight in model.parameters()) == 3_754_622_976


def test_the_words_of_the_contract_are_several_tokens(loaded: Loaded) -> None:
    cut = loaded[1].tokenizer.tokenize
    assert [cut(word) for word in ("amusement", "contentment", "disgust", "fear")] == [
        ["am", "usement"],
        ["content", "ment"],
        ["dis", "g", "ust"],
        ["f", "ear"],
    ]
    assert cut("<step1>A") == ["<", "step", "1", ">A"]  # the end of a tag goes with the word behind it


@pytest.mark.parametrize(
    ("labels", "tokens"),
    [(MIKELS8, 1), (LabelSet("few", ("disgust", "disappointment", "envy", "nervousness")), None)],
    ids=["first tokens differ", "two labels begin alike"],
)
def test_labels_of_several_tokens_are_scored_as_rows_of_their_own_give_them(
    loaded: Loaded, photograph: str, labels: LabelSet, tokens: int | None
) -> None:
    asked = [consistency_question((photograph,), "A dog."), coherence_question("A dog.", "Joy.", labels)]
    replies = ScoreJudge(*loaded).answer(asked)
    for question, reply, counted in zip(asked, replies, (1, tokens), strict=True):
        scores = torch.tensor(log_probabilities(loaded, question, counted))
        assert list(reply.probabilities.values()) == pytest.approx(scores.softmax(-1).tolist(), abs=1e-6)


def test_a_completion_cut_at_any_token_is_never_taken_for_a_whole_one(loaded: Loaded) -> None:
    tokenizer = loaded[1].tokenizer
    for label, tail in product(MIKELS8.labels, ("", "\n")):
        text = f"<step1>A dog.</step1>\n<step2>I smile.</step2>\n<step3>positive, low</step3>\n\\boxed{{{label}}}{tail}"
        ids = tokenizer(text).input_ids
        assert tokenizer.decode(ids) == text
        read = [parse(tokenizer.decode(ids[:end])) for end in range(len(ids) + 1)]
        assert read[-1].problem is None
        assert read[-1].answer == label
        # The closing brace may be a token with the line break behind it; before it, there is no answer.
        assert {thought.answer for thought in read if thought.problem is None} == {label}
        assert all(thought.problem is not None for thought in read[: len(tokenizer(text.split("}")[0]).input_ids)])


def test_the_system_prompt_of_the_template_stands_in_every_prompt_once_and_is_counted(
    loaded: Loaded, photograph: str
) -> None:
    prompt = build_prompt(MIKELS8)
    inputs = encode(loaded[1], [((photograph,), prompt)])
    text = loaded[1].tokenizer.decode(inputs["input_ids"][0])
    begin = "<|im_start|>system\nYou are a helpful assistant.<|im_end|>\n<|im_start|>user\n<|vision_start|>"
    assert text.startswith(begin + "<|image_pad|>" * 12 + "<|vision_end|>" + prompt)  # 4 x 3 tokens of 28 pixels
    assert text.endswith("<|im_end|>\n<|im_start|>assistant\n")
    assert text.count("system") == 1
    counted = token_counter(loaded[1], prompt)
    assert text_tokens(loaded[1], prompt) + counted((112, 84)) == inputs["input_ids"].shape[1]
    assert counted((112, 84)) == 12 + 2


def test_what_labels_cost_is_counted_in_their_tokens(loaded: Loaded) -> None:
    # am|usement|,| awe: 4 tokens in the list. No two begin alike, so the judge reads the list alone.
    assert label_cost(loaded[1], ("amusement", "awe")).startswith("2 take 4 tokens of a prompt and 4 of")
    # dis|g|ust|,| disappointment begin alike: the list, then dis|g|ust and dis|appointment with their ends of turn.
    assert label_cost(loaded[1], ("disgust", "disappointment")).startswith("2 take 5 tokens of a prompt and 12 of")


def greedily(loaded: Loaded, image: str, text: str, tokens: int) -> str:
    """A completion by the definition of greedy: the most probable token, again and again, without a cache."""
    model, processor = loaded
    inputs = encode(processor, [((image,), text)])
    prompt = inputs["input_ids"].shape[1]
    for _ in range(tokens):
        with torch.no_grad():
            logits = model(**inputs, logits_to_keep=1).logits[0, -1]
        logits[vision_token_ids(processor)] = -torch.inf
        one = torch.ones((1, 1), dtype=torch.long)
        more = {"input_ids": one * logits.argmax(), "attention_mask": one, "mm_token_type_ids": 0 * one}
        inputs |= {name: torch.cat([inputs[name], value], 1) for name, value in more.items()}
    return str(processor.tokenizer.decode(inputs["input_ids"][0, prompt:]))


def test_what_decodes_greedily_takes_nothing_from_the_settings_of_the_checkpoint(
    loaded: Loaded, checkpoint: Path, photograph: str
) -> None:
    settings = GenerationConfig.from_pretrained(checkpoint)
    assert (settings.repetition_penalty, settings.temperature) == (1.05, 1e-6)
    question, (model, processor) = coherence_question("A dog.", "Joy.", MIKELS8), loaded
    wanted = greedily(loaded, photograph, "What is felt?", 6)
    asked = ((photograph,), "What is felt?")
    inputs = encode(processor, [asked])
    penalised = model.generate(**inputs, generation_config=settings, do_sample=False, max_new_tokens=6)
    assert processor.tokenizer.decode(penalised[0, inputs["input_ids"].shape[1] :]) != wanted
    assert generate(*loaded, [asked], max_new_tokens=6) == [wanted]
    replies = GenerateJudge(*loaded, max_new_tokens=6).answer([replace(question, images=asked[0], text=asked[1])])
    assert [reply.text for reply in replies] == [wanted]


def rollouts(loaded: Loaded, scenes: str, folder: Path, **settings: Any) -> dict[str, Any]:
    """The scored batch of two prompts with two completions each."""
    model, processor = deepcopy(loaded[0]), loaded[1]
    rewards = [lambda completions, **_: [float(len(c[0]["content"])) for c in completions]]
    batch = {"num_generations": 2, "per_device_train_batch_size": 4, "max_completion_length": 6}
    trainer = trainer_on(EmoTrainer, folder, scenes, (model, processor), rewards, **batch | settings)
    trainer.model.train()
    rows = [trainer.train_dataset[place] for place in range(2) for _ in range(2)]
    set_seed(7)
    scored: dict[str, Any] = trainer._generate_and_score_completions(rows)
    return scored


def test_rollouts_are_sampled_as_the_recipe_says_from_the_prompts_that_evaluation_reads(
    loaded: Loaded, scenes: str, tmp_path: Path
) -> None:
    batch = rollouts(loaded, scenes, tmp_path)
    assert len(set(map(tuple, batch["completion_ids"].tolist()))) == 4  # at 1e-6 those of a prompt would be equal
    samples = load_samples(scenes, split="train")
    read = encode(loaded[1], [(samples[place].images, build_prompt(MIKELS8)) for place in range(2)])
    assert torch.equal(batch["prompt_ids"][::2], read["input_ids"])


def test_a_repetition_penalty_counts_in_rollouts_if_the_recipe_asks_for_it(
    loaded: Loaded, scenes: str, tmp_path: Path
) -> None:
    def repeated(**settings: Any) -> int:
        batch = rollouts(loaded, scenes, tmp_path, temperature=0.01, **settings)
        pairs = zip(batch["prompt_ids"].tolist(), batch["completion_ids"].tolist(), strict=True)
        return sum(len(said) - len({*said} - {*asked}) for asked, said in pairs)

    assert repeated() > 0
    assert repeated(repetition_penalty=1e9) == 0
