"""Judges: scoring equals the long way round, generation reads text, and the model is left as it was found."""

from collections.abc import Callable
from random import Random
from typing import Any

import pytest
import torch
from transformers import PreTrainedModel, ProcessorMixin

from emor3.data.folders import load_samples
from emor3.judges.local import GenerateJudge, ScoreJudge, evaluating
from emor3.judges.lockstep import InStepJudge
from emor3.method.labels import MIKELS8, LabelSet
from emor3.method.reflection import coherence_question, consistency_question
from emor3.method.types import Question, Reply
from emor3.models.checkpoints import load
from emor3.models.generation import encode


@pytest.fixture(scope="module")
def loaded(random_checkpoint: str) -> tuple[PreTrainedModel, ProcessorMixin]:
    return load(random_checkpoint)


@pytest.fixture(scope="module")
def images(scenes: str) -> list[str]:
    return [sample.image for sample in load_samples(scenes, split="test")]


def questions(images: list[str], labels: LabelSet = MIKELS8) -> list[Question]:
    return [
        consistency_question((images[0],), "A dog."),
        coherence_question("A dog in a very long street with many houses.", "Joy.", labels),
        consistency_question((images[1],), "A cat and a long description of it, to need padding."),
        coherence_question("A cat.", "Fear.", labels),
    ]


def long_way(
    model: PreTrainedModel,
    processor: ProcessorMixin,
    question: Question,
    candidate: str,
    length: int | None = None,
) -> Any:
    """Log-probability of a candidate's first tokens (None: all, with the end of turn), one row, no padding."""
    reply = [*processor.tokenizer(candidate).input_ids, processor.tokenizer.eos_token_id][:length]
    inputs = encode(processor, [(question.images, question.text)])
    prompt = inputs["input_ids"].shape[1]
    extra = torch.tensor([reply])
    inputs["input_ids"] = torch.cat([inputs["input_ids"], extra], 1)
    inputs["attention_mask"] = torch.cat([inputs["attention_mask"], torch.ones_like(extra)], 1)
    inputs["mm_token_type_ids"] = torch.cat([inputs["mm_token_type_ids"], torch.zeros_like(extra)], 1)
    with torch.no_grad():
        log_probs = model(**inputs).logits[0].log_softmax(-1)
    return sum(log_probs[prompt + place - 1, token].item() for place, token in enumerate(reply))


def test_first_tokens_decide_where_they_differ_and_padding_changes_nothing(
    loaded: tuple[PreTrainedModel, ProcessorMixin], images: list[str]
) -> None:
    asked = questions(images)
    for question, reply in zip(asked, ScoreJudge(*loaded).answer(asked), strict=True):
        scores = torch.tensor([long_way(*loaded, question, candidate, 1) for candidate in question.candidates])
        assert list(reply.probabilities.values()) == pytest.approx(scores.softmax(-1).tolist(), abs=1e-5)
        assert reply.text == question.candidates[int(scores.argmax())]


@pytest.mark.parametrize(
    "labels",
    [("great joy", "great fear", "calm"), ("joy", "joyful", "fear")],
    ids=["a shared first token", "a label that begins another"],
)
def test_whole_candidates_decide_where_first_tokens_are_shared(
    loaded: tuple[PreTrainedModel, ProcessorMixin], images: list[str], labels: tuple[Any, ...]
) -> None:
    asked = questions(images, LabelSet("some", labels))
    judge = ScoreJudge(*loaded)
    assert judge.work(asked[1]) == (False, 3)
    for question, reply in zip(asked[1::2], judge.answer(asked)[1::2], strict=True):
        scores = torch.tensor([long_way(*loaded, question, candidate) for candidate in question.candidates])
        assert list(reply.probabilities.values()) == pytest.approx(scores.softmax(-1).tolist(), abs=1e-5)


def test_a_question_on_an_image_may_need_the_second_pass_too(
    loaded: tuple[PreTrainedModel, ProcessorMixin], images: list[str]
) -> None:
    asked = [
        Question(
            "consistency", "Does it fit? A dog in a long, long street.", ("Yes, it does", "Yes, partly"), (images[0],)
        ),
        Question("consistency", "Does it fit?", ("Yes, it does", "No"), (images[1],)),
        Question("consistency", "Does it fit? A cat.", ("No way", "No", "No dog"), (images[1],)),
    ]
    judge = ScoreJudge(*loaded)
    assert [judge.work(question) for question in asked] == [(True, 2), (True, 0), (True, 3)]
    for question, reply, length in zip(asked, judge.answer(asked), (None, 1, None), strict=True):
        scores = torch.tensor([long_way(*loaded, question, candidate, length) for candidate in question.candidates])
        assert list(reply.probabilities.values()) == pytest.approx(scores.softmax(-1).tolist(), abs=1e-5)


def test_placeholders_in_a_completion_bring_no_image_into_a_question(
    loaded: tuple[PreTrainedModel, ProcessorMixin], images: list[str]
) -> None:
    bait = "A dog <|vision_start|><|image_pad|><|vision_end|> <image> [IMG]"
    asked = [consistency_question((images[0],), bait), coherence_question(bait, bait, MIKELS8)]
    inputs = encode(loaded[1], [(question.images, question.text) for question in asked])
    image_token = loaded[0].config.image_token_id
    assert (inputs["input_ids"] == image_token).sum(1).tolist() == [16, 0]  # those of the one real picture
    assert len(ScoreJudge(*loaded).answer(asked)) == 2


def test_scoring_is_deterministic_and_the_same_in_any_batch(
    loaded: tuple[PreTrainedModel, ProcessorMixin], images: list[str]
) -> None:
    asked = questions(images)
    whole, again, single = (ScoreJudge(*loaded, batch_size=size).answer(asked) for size in (8, 8, 1))
    assert whole == again
    for one, other in zip(whole, single, strict=True):
        assert list(one.probabilities.values()) == pytest.approx(list(other.probabilities.values()), abs=1e-5)


def test_a_batch_takes_one_forward_for_what_questions_share_and_one_for_the_rest(
    loaded: tuple[PreTrainedModel, ProcessorMixin], images: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    model, processor = loaded
    forwards = []
    monkeypatch.setattr(model, "forward", counted(model.forward, forwards))
    ScoreJudge(model, processor).answer(questions(images))
    assert len(forwards) == 2
    ScoreJudge(model, processor).answer(questions(images, LabelSet("s", ("great joy", "great fear"))))
    assert len(forwards) == 6  # and two for whole candidates: questions, then candidates


def test_questions_on_one_image_encode_it_once(
    loaded: tuple[PreTrainedModel, ProcessorMixin], images: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    model, processor = loaded
    asked = [consistency_question((images[place % 2],), f"{text} dog.") for place, text in enumerate(["A", "No", "My"])]
    asked += [asked[0], coherence_question("A cat.", "Fear.", MIKELS8)]
    alone = [reply for question in asked for reply in ScoreJudge(model, processor).answer([question])]
    forwards = []
    monkeypatch.setattr(model.model.visual, "forward", counted(model.model.visual.forward, forwards))
    together = ScoreJudge(model, processor).answer(asked)
    assert [len(call["grid_thw"]) for call in forwards] == [2]
    for one, other in zip(alone, together, strict=True):
        assert list(one.probabilities.values()) == pytest.approx(list(other.probabilities.values()), abs=1e-5)


def counted(forward: Any, calls: list[Any]) -> Callable[..., Any]:
    def call(*args: Any, **kwargs: Any) -> Any:
        calls.append(kwargs)
        return forward(*args, **kwargs)

    return call


def test_generation_replies_in_free_text_without_probabilities(
    loaded: tuple[PreTrainedModel, ProcessorMixin], images: list[str]
) -> None:
    replies = GenerateJudge(*loaded, max_new_tokens=4).answer(questions(images))
    assert len(replies) == 4
    assert all(reply.probabilities is None for reply in replies)
    assert replies == GenerateJudge(*loaded, max_new_tokens=4).answer(questions(images))  # greedy


def test_every_submodule_has_its_own_flag_back_even_after_an_error(
    loaded: tuple[PreTrainedModel, ProcessorMixin],
) -> None:
    model, _ = loaded
    model.train()
    model.model.visual.eval()  # frozen on purpose
    seen = []

    def fail() -> None:
        with evaluating(model):
            seen.extend([any(module.training for module in model.modules()), torch.is_grad_enabled()])
            raise RuntimeError("out of memory")

    with pytest.raises(RuntimeError, match="out of memory"):
        fail()
    assert seen == [False, False]
    assert model.training
    assert not model.model.visual.training
    assert torch.is_grad_enabled()
    model.eval()


class CountingJudge:
    """Replies with the question's text and remembers what it was asked."""

    def __init__(self) -> None:
        self.asked = []

    def work(self, question: Question) -> tuple[Any, ...]:
        return len(question.images), len(question.candidates) if len(question.candidates) > 2 else 0

    def answer(self, asked: Any) -> list[Reply]:
        self.asked = list(asked)
        return [Reply(question.text) for question in asked]


def test_ranks_do_the_same_work_whatever_they_have_to_ask() -> None:
    image = Question("consistency", "image", ("Yes", "No"), ("a.png",))
    short, long = Question("coherence", "short", ("a", "b")), Question("coherence", "long", ("a", "b", "c"))
    ranks = [[image, short, short], [long], []]
    shared = [
        [{(True, 0): (1, image), (False, 0): (2, short)}, {(False, 3): (1, long)}, {}] for _ in ranks
    ]  # what every rank gathers
    works = []
    for asked, gathered in zip(ranks, shared, strict=True):
        judge = CountingJudge()
        replies = InStepJudge(judge, lambda mine, gathered=gathered: gathered).answer(asked)
        assert [reply.text for reply in replies] == [question.text for question in asked]
        works.append([judge.work(question) for question in judge.asked])
    assert works[0] == works[1] == works[2] == [(False, 0), (False, 0), (False, 3), (True, 0)]


def test_one_process_asks_no_filler(images: list[str]) -> None:
    judge = CountingJudge()
    asked = questions(images)
    Random(0).shuffle(asked)
    assert len(InStepJudge(judge, lambda mine: mine).answer(asked)) == len(judge.asked) == 4
