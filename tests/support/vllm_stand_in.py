"""A module in vLLM's place: its public signatures as of 0.31, and transformers behind them."""

import sys
from importlib.machinery import ModuleSpec
from types import ModuleType, SimpleNamespace
from typing import Any

import pytest
import torch
from torch import Tensor

from emor3.models.checkpoints import load


class SamplingParams:
    """Keeps what it is given; the names are those of vLLM's own class, and others are refused as there."""

    def __init__(
        self,
        *,
        n: int = 1,
        repetition_penalty: float = 1.0,
        temperature: float = 1.0,
        top_p: float = 1.0,
        top_k: int = 0,
        seed: int | None = None,
        max_tokens: int | None = 16,
        logprobs: int | None = None,
        prompt_logprobs: int | None = None,
        detokenize: bool = True,
        logit_bias: dict[int, float] | None = None,
        allowed_token_ids: list[int] | None = None,
    ) -> None:
        vars(self).update(locals())


class LLM:
    """Expands each image's placeholder as vLLM does, and computes by the checkpoint in transformers."""

    latest: "LLM"
    room = 1024
    """Tokens for which there is memory."""
    on_cpu = False

    def __init__(
        self,
        model: str,
        *,
        trust_remote_code: bool = False,
        dtype: str = "auto",
        gpu_memory_utilization: float = 0.92,
        **kwargs: Any,
    ) -> None:
        self.given = {**kwargs, "model": model, "dtype": dtype, "share": gpu_memory_utilization}
        assert not trust_remote_code
        known = {"max_model_len", "max_logprobs", "logprobs_mode", "enable_chunked_prefill", "limit_mm_per_prompt"}
        assert kwargs.keys() <= known
        self.model, self.processor = load(model)
        self.llm_engine = SimpleNamespace(model_config=SimpleNamespace(max_model_len=self.room))
        self.calls: list[tuple[Any, Any]] = []
        LLM.latest = self

    def generate(self, prompts: Any, sampling_params: Any = None, *, use_tqdm: bool = True) -> list[Any]:
        assert not use_tqdm
        self.calls += zip(prompts, sampling_params, strict=True)
        return [self._answer(p, s) for p, s in zip(prompts, sampling_params, strict=True)]

    def _answer(self, prompt: Any, sampling: SamplingParams) -> Any:
        inputs = self._inputs(prompt)
        if sampling.max_tokens == 1:
            return self._scored(inputs, sampling)
        ids = inputs["input_ids"]
        bias = {(token,): value for token, value in (sampling.logit_bias or {}).items()}
        with torch.random.fork_rng():
            torch.manual_seed(sampling.seed or 0)
            made = self.model.generate(
                **inputs,
                max_new_tokens=sampling.max_tokens,
                do_sample=sampling.temperature > 0,
                num_return_sequences=sampling.n,
                sequence_bias=bias or None,
            )
        return SimpleNamespace(outputs=[SimpleNamespace(token_ids=row[ids.shape[1] :].tolist()) for row in made])

    def _inputs(self, prompt: Any) -> dict[str, Tensor]:
        images, token = prompt.get("multi_modal_data", {}).get("image", []), self.processor.image_token_id
        ids = list(prompt["prompt_token_ids"])
        assert ids.count(token) == len(images)
        sized = prompt.get("mm_processor_kwargs", {})
        shown = dict(self.processor.image_processor(images=images, return_tensors="pt", **sized)) if images else {}
        sizes = iter(shown["image_grid_thw"].prod(1).tolist() if images else ())
        merge = self.processor.image_processor.merge_size**2
        whole = [same for one in ids for same in [one] * (next(sizes) // merge if one == token else 1)]
        rows = torch.tensor([whole])
        return {
            "input_ids": rows,
            "attention_mask": torch.ones_like(rows),
            "mm_token_type_ids": (rows == token).long(),
            **shown,
        }

    def _scored(self, inputs: dict[str, Tensor], sampling: SamplingParams) -> Any:
        with torch.no_grad():
            logits = self.model(**inputs).logits[0].float()
        told = logits.log_softmax(-1)
        following = [None, *(_top(row, int(t)) for row, t in zip(told, inputs["input_ids"][0, 1:], strict=False))]
        allowed = sampling.allowed_token_ids or list(range(len(logits[-1])))
        last = torch.full_like(logits[-1], -torch.inf).index_copy(0, torch.tensor(allowed), logits[-1, allowed])
        processed = last.log_softmax(-1)  # as logprobs_mode says
        best = processed.topk(sampling.logprobs or 1).indices.tolist()
        scores = {token: SimpleNamespace(logprob=float(processed[token])) for token in best}
        return SimpleNamespace(outputs=[SimpleNamespace(logprobs=[scores])], prompt_logprobs=following)


def _top(row: Tensor, token: int) -> dict[int, Any]:
    return {place: SimpleNamespace(logprob=float(row[place])) for place in (int(row.argmax()), token)}


def install(monkeypatch: pytest.MonkeyPatch) -> None:
    """Put the stand-in in vLLM's place."""
    module = ModuleType("vllm")
    module.__spec__ = ModuleSpec("vllm", None)
    vars(module).update(LLM=LLM, SamplingParams=SamplingParams)
    monkeypatch.setitem(sys.modules, "vllm", module)
    platforms = ModuleType("vllm.platforms")
    vars(platforms)["current_platform"] = SimpleNamespace(is_cpu=lambda: LLM.on_cpu)
    monkeypatch.setitem(sys.modules, "vllm.platforms", platforms)
