"""vLLM as the engine of an evaluation, against a stand-in with its signatures and transformers behind them."""

import sys
from pathlib import Path
from typing import Any

import pytest
from peft import LoraConfig, get_peft_model
from PIL import Image

import vllm_stand_in
from emor3.data.folders import load_samples
from emor3.errors import UserError
from emor3.evaluation.candidate import load_candidate
from emor3.evaluation.evaluate import check_prompts, predict_samples
from emor3.evaluation.settings import EvaluationSettings
from emor3.judges.local import ScoreJudge
from emor3.judges.vllm import EngineJudge
from emor3.method.labels import MIKELS8, LabelSet
from emor3.method.reflection import coherence_question, consistency_question
from emor3.method.thinking import sample_prompt
from emor3.models.architectures import resized
from emor3.models.checkpoints import load, save
from emor3.models.engines.batches import Decoding
from emor3.models.engines.local import LocalEngine
from emor3.models.engines.vllm import VllmEngine
from emor3.models.generation import Request


@pytest.fixture(autouse=True)
def vllm(monkeypatch: pytest.MonkeyPatch) -> None:
    vllm_stand_in.install(monkeypatch)


@pytest.fixture
def requests(scenes: str) -> list[Request]:
    return [(sample.images, sample_prompt(sample, "steps")) for sample in load_samples(scenes, split="test")[:2]]


def test_the_engine_reads_prompts_and_images_as_transformers_does_and_decodes_greedily(
    random_checkpoint: str, requests: list[Request]
) -> None:
    asked = [*requests, ((), "What is felt?")]
    engine, local = VllmEngine(random_checkpoint), LocalEngine(*load(random_checkpoint))
    assert engine.complete(asked, Decoding(6)) == local.complete(asked, Decoding(6))
    llm = vllm_stand_in.LLM.latest
    assert llm.given["dtype"] == "float32"  # left alone, vLLM would take 16 bits
    for _, sampling in llm.calls:
        assert (sampling.temperature, sampling.top_p, sampling.top_k, sampling.repetition_penalty) == (0.0, 1.0, 0, 1.0)
        assert set(sampling.logit_bias.values()) == {-100.0}  # no placeholder of an image is sampled


def test_an_image_that_would_be_scaled_once_more_is_seen_as_transformers_sees_it(
    random_checkpoint: str, tmp_path: Path
) -> None:
    # 96 x 64 pixels become 64 x 48, in sixteens and at most 4,096; these are fewer than the least area, 4,096 too, so
    # that a second processor makes 80 x 64 of them.
    Image.effect_noise((96, 64), 80).convert("RGB").save(tmp_path / "wide.png")
    model, processor = load(random_checkpoint)
    once = resized((96, 64), processor)
    assert (once, resized(once, processor)) == ((64, 48), (80, 64))
    asked = [consistency_question((str(tmp_path / "wide.png"),), "A dog on a beach.")]
    judges = EngineJudge(VllmEngine(random_checkpoint)), ScoreJudge(model, processor)
    found, expected = (judge.answer(asked)[0].probabilities for judge in judges)
    assert found == pytest.approx(expected, abs=1e-6)


def test_draws_come_in_one_request_with_a_seed_of_their_own(random_checkpoint: str, requests: list[Request]) -> None:
    engine, hot = VllmEngine(random_checkpoint), Decoding(6, temperature=1.0, seed=4, draws=3)
    draws = engine.complete(requests, hot)
    assert [len(own) for own in draws] == [3, 3]
    assert engine.complete(requests, hot) == draws
    samplings = [sampling for _, sampling in vllm_stand_in.LLM.latest.calls]
    assert [sampling.n for sampling in samplings] == [3] * 4
    assert samplings[0].seed == samplings[2].seed != samplings[1].seed


def test_the_judge_reads_the_probabilities_that_the_scoring_judge_reads(random_checkpoint: str, scenes: str) -> None:
    images = load_samples(scenes, split="test")[0].images
    alike = LabelSet("alike", ("awe", "awe and joy", "fear"))  # two begin with the same token
    questions = [
        consistency_question(images, "A dog."),
        coherence_question("A dog.", "Joy.", MIKELS8),
        coherence_question("A dog.", "Joy.", alike),
    ]
    engine = EngineJudge(VllmEngine(random_checkpoint))
    expected = ScoreJudge(*load(random_checkpoint)).answer(questions)
    for reply, other in zip(engine.answer(questions), expected, strict=True):
        assert reply.text == other.text
        assert reply.probabilities == pytest.approx(other.probabilities, abs=1e-5)
    for place, question in enumerate(questions):  # none that begin alike, or only such ones
        assert engine.answer([question])[0].text == expected[place].text
    assert engine.answer([]) == []


def test_an_evaluation_with_the_engine_finds_what_transformers_finds(random_checkpoint: str, scenes: str) -> None:
    samples = load_samples(scenes, split="test")[:3]
    settings = EvaluationSettings(max_new_tokens=4, engine="vllm")
    engines = ("vllm", "transformers")
    vllm, local = (predict_samples(load_candidate(random_checkpoint, None, e), samples, settings) for e in engines)
    assert [made.completion for made in vllm] == [made.completion for made in local]


def test_engines_of_policy_and_judge_share_the_memory_and_adapters_are_merged_first(
    random_checkpoint: str, tmp_path: Path
) -> None:
    adapters = tmp_path / "adapters"
    model, processor = load(random_checkpoint)
    save(get_peft_model(model, LoraConfig(target_modules=["q_proj"])), processor, adapters)
    candidate = load_candidate(str(adapters), random_checkpoint, "vllm")
    judge = vllm_stand_in.LLM.latest
    assert judge.given["model"] == random_checkpoint
    assert judge.given["share"] == 0.45
    assert candidate.judge.engine is not candidate.engine
    alone = load_candidate(random_checkpoint, None, "vllm")
    with pytest.raises(UserError, match="is loaded in vllm, which holds its weights"):
        _ = alone.model
    assert alone.judge.engine is alone.engine
    assert vllm_stand_in.LLM.latest.given["share"] == 0.9


def test_what_the_engine_has_no_room_for_is_one_line_before_anything_is_made(
    random_checkpoint: str, scenes: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(vllm_stand_in.LLM, "room", 64)
    candidate = load_candidate(random_checkpoint, None, "vllm")
    samples = load_samples(scenes, split="test")[:1]
    with pytest.raises(UserError, match=r"more than vLLM's room of 64: use smaller images"):
        check_prompts(candidate, samples, EvaluationSettings(engine="vllm"))
    assert not vllm_stand_in.LLM.latest.calls


def test_a_model_that_it_cannot_serve_is_one_line_with_the_way_out(
    random_checkpoint: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(self: Any, **_: Any) -> None:
        raise ValueError("Model architectures ['Tiny'] are not supported for now.\nSupported: many")

    monkeypatch.setattr(vllm_stand_in.LLM, "__init__", refuse)
    with pytest.raises(
        UserError, match=r"vLLM cannot serve .* \(leave out --engine vllm\): Model architectures"
    ) as told:
        VllmEngine(random_checkpoint)
    assert "\n" not in str(told.value)


def test_an_engine_that_dies_is_one_line_and_what_it_had_made_is_kept(
    random_checkpoint: str,
    scenes: str,
    tmp_path: Path,
    main_with: Any,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    class EngineDeadError(Exception):
        pass  # as vLLM's, which derives from nothing else

    alive = vllm_stand_in.LLM.generate

    def die(self: Any, prompts: Any, sampling_params: Any = None, **settings: Any) -> Any:
        if sampling_params[0].temperature:  # greedy answers are made, the draws after them not
            raise EngineDeadError("EngineCore encountered an issue.\nSee stack trace above.")
        return alive(self, prompts, sampling_params, **settings)

    asked = ("evaluate", "--model", random_checkpoint, "--data", scenes, "--engine", "vllm", "--limit", 3)
    asked += ("--samples", 2, "--max-new-tokens", 4, "--output", tmp_path / "out")
    with monkeypatch.context() as dying:
        dying.setattr(vllm_stand_in.LLM, "generate", die)
        assert main_with(*asked) == 2
    told = capsys.readouterr().err.splitlines()[-1]
    assert "vLLM ended with an error (leave out --engine vllm): EngineDeadError: EngineCore encountered" in told
    assert "Traceback" not in told
    assert (tmp_path / "out" / "unfinished.jsonl").read_text().count("\n") >= 1
    assert main_with(*asked, "--resume") == 0
    greedy = [request for request, sampling in vllm_stand_in.LLM.latest.calls if not sampling.temperature]
    assert not greedy  # they were kept


@pytest.mark.parametrize("on_cpu", [False, True])
def test_on_a_cpu_prompts_are_not_read_in_parts_but_with_linear_attention(
    random_checkpoint: str, monkeypatch: pytest.MonkeyPatch, on_cpu: bool
) -> None:
    monkeypatch.setattr(vllm_stand_in.LLM, "on_cpu", on_cpu)
    with monkeypatch.context() as linear:
        linear.setattr("emor3.models.engines.vllm.overwrites_states", lambda config: True)
        VllmEngine(random_checkpoint)
    assert vllm_stand_in.LLM.latest.given["enable_chunked_prefill"] is None
    VllmEngine(random_checkpoint)
    # There vLLM 0.31 ends in "CPU Generator does not use offset" as soon as a seeded prompt is.
    assert vllm_stand_in.LLM.latest.given["enable_chunked_prefill"] is (False if on_cpu else None)


def test_without_vllm_the_way_to_install_it_is_said_before_a_model_is_loaded(
    scenes: str, tmp_path: Path, main_with: Any, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delitem(sys.modules, "vllm")
    output = tmp_path / "out"
    asked = ("evaluate", "--model", "embedded", "--data", scenes, "--engine", "vllm", "--output", output)
    assert main_with(*asked) == 2
    told = capsys.readouterr().err
    assert "--engine vllm: vLLM is not installed: pip install 'emor3[vllm]'" in told
    assert not output.exists()
