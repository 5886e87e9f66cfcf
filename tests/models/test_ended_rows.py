"""Sampling computes rows until they end, and gives the tokens that it would give if it computed all to the last."""

from pathlib import Path
from typing import Any

import pytest
import torch

from emor3.models import prefix_cache
from emor3.models.checkpoints import load
from emor3.models.generation import encode
from emor3.models.prefix_cache import continuing, ends_of


@pytest.fixture(scope="module", params=["Which emotion?", "Which emotion would it evoke? Choose one of: joy, fear."])
def asked(request: pytest.FixtureRequest, scenes: str) -> tuple[Any, Any]:
    """The model, and two prompts of unlike or of equal length: without padding generate passes no mask on."""
    model, processor = load("embedded")
    picture = str(sorted(Path(scenes).glob("images/*"))[0])
    texts = ("Which emotion would it evoke? Choose one of: joy, fear.", request.param)
    return model.eval(), encode(processor, [((picture,), text) for text in texts])


def sampled(asked: tuple[Any, Any], tokens: int) -> tuple[torch.Tensor, list[int]]:
    """Six completions of each of two prompts, and how many rows each forward of the language model had."""
    model, inputs = asked
    rows: list[int] = []
    hook = model.get_decoder().register_forward_pre_hook(
        lambda module, args, given: rows.append(len(given["inputs_embeds"])), with_kwargs=True
    )
    torch.manual_seed(0)
    with torch.no_grad(), continuing(model, torch.arange(2).repeat_interleave(6)):
        ids = model.generate(**inputs, max_new_tokens=tokens, do_sample=True, temperature=1.5, top_k=0)
    hook.remove()
    return ids, rows


def test_rows_that_ended_are_computed_no_further_and_tokens_are_the_same(
    asked: tuple[Any, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    ids, rows = sampled(asked, 64)
    monkeypatch.setattr(prefix_cache, "WORTH_CUTTING", 0.0)
    expected, whole = sampled(asked, 64)
    torch.testing.assert_close(ids, expected, rtol=0, atol=0)
    assert set(whole[1:]) == {12}  # after the two prompts
    assert len(rows) == len(whole)
    assert rows[1] == 12
    assert rows[-1] < 12


def test_what_ends_a_completion_is_what_generate_is_given(asked: tuple[Any, Any]) -> None:
    model, _ = asked
    assert ends_of(model, {}) == [model.generation_config.eos_token_id]
    assert ends_of(model, {"eos_token_id": [2, 3]}) == [2, 3]
    assert ends_of(model, {"eos_token_id": None}) == []
