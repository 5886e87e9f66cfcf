"""The reward function of each host gives the golden cases' values, by the signature with which the host calls it."""

import asyncio
import importlib.util
import inspect
import sys
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from emor3.errors import UserError
from emor3.hosts import easyr1, verl
from emor3.hosts.exports.easyr1 import LOADED
from emor3.hosts.scoring import Scorer, SharedParts
from emor3.hosts.settings import HostSettings
from emor3.hosts.trl import PartFunction
from emor3.method.types import Question, Reply
from golden import CASES, PARTS, SCORED, CaseJudge, reward_block, row_text, settings_file, total

UNJUDGED = next(case for case in SCORED if not reward_block(case)["reflective"])


@pytest.mark.parametrize("case", SCORED, ids=lambda case: case["id"])
def test_trl_sums_the_parts_of_a_golden_case_to_its_reward(case: dict[str, Any]) -> None:
    settings = HostSettings.model_validate({"reward": reward_block(case)})
    shared = SharedParts(lambda: Scorer(settings, lambda _: CaseJudge(case)))
    names = PARTS if settings.reward.aspects else PARTS[:2]
    completions = [[{"role": "assistant", "content": case["response"]}]]
    parts = {}
    for name in names:
        function = PartFunction(name, shared)
        assert function.__name__ == name  # what TRL's trackers show
        (parts[name],) = function(
            prompts=[[]], completions=completions, completion_ids=[[1]], trainer_state=None, emor3=[row_text(case)]
        )
    assert total(case, parts) == pytest.approx(case["expected"]["overall"], abs=1e-9)
    assert parts == {name: case["expected"][name] for name in names}


def test_trl_finds_the_functions_by_their_dotted_paths() -> None:
    for part in PARTS:
        module, _, name = f"emor3.hosts.trl.{part}".rpartition(".")
        function = getattr(importlib.import_module(module), name)
        assert (function.__name__, inspect.iscoroutinefunction(function)) == (part, False)


@pytest.fixture
def easyr1_file(tmp_path: Path) -> Any:
    """The exported file, loaded as EasyR1 loads it: by its path, as the module `custom_reward_fn`."""
    path = tmp_path / "emor3_reward.py"
    path.write_text(LOADED)
    spec = importlib.util.spec_from_file_location("custom_reward_fn", path)
    module = importlib.util.module_from_spec(spec)
    sys.modules["custom_reward_fn"] = module
    spec.loader.exec_module(module)
    yield module
    del sys.modules["custom_reward_fn"]


def test_easyr1_gets_overall_and_parts_of_a_batch(easyr1_file: Any, tmp_path: Path) -> None:
    assert (easyr1_file.REWARD_NAME, easyr1_file.REWARD_TYPE) == ("emor3", "batch")
    function = partial(easyr1_file.compute_score, settings=settings_file(tmp_path, UNJUDGED))
    given = {"response": UNJUDGED["response"], "response_length": 9, "ground_truth": row_text(UNJUDGED)}
    expected = UNJUDGED["expected"]
    scores = {"accuracy": expected["accuracy"], "format": expected["format"], "judge_failed": 0.0}
    assert function([given, given]) == [pytest.approx({"overall": expected["overall"], **scores})] * 2


def test_easyr1_leaves_out_what_the_judge_failed_on_for_the_prompt_and_counts_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Failing(CaseJudge):
        def answer(self, questions: Sequence[Question]) -> list[Reply]:
            said = super().answer(questions)
            return [Reply("", error="down") if "bad" in q.text else r for q, r in zip(questions, said, strict=True)]

    case = SCORED[0]
    settings = HostSettings.model_validate({"reward": reward_block(case)})
    # the judge of a settings file would be a server or a model: the scorer of one gets a stand-in instead
    monkeypatch.setattr(easyr1, "scorer", lambda path, whole_groups: Scorer(settings, lambda _: Failing(case)))
    texts = [case["response"], case["response"].replace("A child alone.", "bad"), case["response"]]
    rows = [row_text(case), row_text(case), row_text({**case, "id": "other"}, "b.png")]
    given = [{"response": text, "ground_truth": row} for text, row in zip(texts, rows, strict=True)]
    found = easyr1.compute_score(given, settings="stand-in")
    assert [one["judge_failed"] for one in found] == [1, 1, 0]
    assert ["consistency" in one for one in found] == [False, False, True]
    # everything is right; without R_RER 0.8 + 0.1 for both of the prompt
    assert [one["overall"] for one in found] == pytest.approx([0.9, 0.9, 1.0])


def test_verl_awaits_score_and_acc_of_one_completion(tmp_path: Path) -> None:
    assert inspect.iscoroutinefunction(verl.compute_score)  # verl calls what is no coroutine in a thread
    given = {"data_source": "emor3", "solution_str": UNJUDGED["response"], "ground_truth": row_text(UNJUDGED)}
    extra = {"extra_info": {"num_turns": None}, "reward_router_address": "x:1", "reward_model_tokenizer": None}
    found = asyncio.run(verl.compute_score(**given, **extra, settings=settings_file(tmp_path, UNJUDGED)))
    expected = UNJUDGED["expected"]
    assert found == {
        "score": pytest.approx(expected["overall"]),
        "acc": expected["accuracy"],
        "format": expected["format"],
    }


@pytest.mark.parametrize("case", [case for case in CASES if "error" in case["expected"]], ids=lambda case: case["id"])
def test_a_label_outside_the_set_is_refused_in_every_host(case: dict[str, Any], tmp_path: Path) -> None:
    settings = settings_file(tmp_path, {**case, "weights": {"reflective": 0}})
    complaint = "row 0: 'label' must be one of"
    with pytest.raises(UserError, match=complaint):
        easyr1.compute_score([{"response": case["response"], "ground_truth": row_text(case)}], settings=settings)
    with pytest.raises(UserError, match=complaint):
        asyncio.run(verl.compute_score("emor3", case["response"], row_text(case), settings=settings))
