"""Completions and log-probabilities by a vLLM engine of our own, in the process: for evaluation, not for training.

Prompts, sizes of images, sampling and precision are those of transformers. Run with vLLM 0.31 on a CPU
(docs/performance.md), tested on a stand-in with vLLM's signatures. Not yet run on a GPU.
"""

import importlib
import os
from collections.abc import Sequence
from contextlib import AbstractContextManager
from importlib.util import find_spec
from random import Random
from tempfile import TemporaryDirectory
from typing import Any, Literal

from PIL import Image
from transformers import PretrainedConfig, ProcessorMixin

from emor3.errors import UserError
from emor3.models.architectures import is_sized_by_area, overwrites_states
from emor3.models.checkpoints import check_fit
from emor3.models.engines.batches import Decoding, plan
from emor3.models.generation import Request, chat, request_lengths, unexpanded, vision_token_ids
from emor3.models.loading import load_config, refusal
from emor3.models.processors import load_processor, open_images, scaled

REQUESTS, TOKENS = 1024, 1 << 20
"""What the engine is given at once, whose images are open meanwhile; it makes batches of these by itself."""
MEMORY_SHARE = 0.9
"""Of a GPU's memory, for all engines of the process together."""
WAY_OUT = "leave out --engine vllm"
ANY = (Exception,)
"""What vLLM ends with: its own errors have nothing but this in common."""


def check_installed() -> None:
    """Raise UserError if vLLM cannot be imported. It then logs to standard error, and tells nobody that it is used."""
    os.environ.setdefault("VLLM_LOGGING_STREAM", "ext://sys.stderr")  # standard output is the command's
    os.environ.setdefault("VLLM_NO_USAGE_STATS", "1")
    if find_spec("vllm") is None:
        raise UserError(f"--engine vllm: vLLM is not installed: pip install 'emor3[vllm]', or {WAY_OUT}")
    with refusal(f"--engine vllm: vLLM is installed but does not load ({WAY_OUT})"):
        importlib.import_module("vllm")


class VllmEngine:
    """A checkpoint in vLLM."""

    def __init__(self, source: str, *, sharing: int = 1, kept: TemporaryDirectory[str] | None = None) -> None:
        """`sharing`: how many engines share the memory; `kept` is a folder of weights that goes when the engine goes.

        Raises UserError if vLLM cannot serve the checkpoint.
        """
        self._kept: AbstractContextManager[str] | None = kept
        config = load_config(source)
        self.processor: ProcessorMixin = load_processor(source)
        check_fit(config, self.processor, source)
        self._vllm: Any = importlib.import_module("vllm")
        with refusal(f"vLLM cannot serve {source} ({WAY_OUT})", ANY):
            self._llm = self._vllm.LLM(
                model=source,
                trust_remote_code=False,
                dtype=str(config.dtype or "auto").removeprefix("torch."),  # by itself it takes float32 in 16 bits
                max_model_len=-1,  # the model's context, or what fits into memory
                max_logprobs=-1,
                logprobs_mode="processed_logprobs",  # among the tokens that are allowed
                gpu_memory_utilization=MEMORY_SHARE / sharing,
                limit_mm_per_prompt={"video": 0, "audio": 0},  # it would keep room for the longest of them
                enable_chunked_prefill=False if self._reads_prompts_whole(config) else None,
            )

    @staticmethod
    def _reads_prompts_whole(config: PretrainedConfig) -> bool:
        """On a CPU: vLLM takes back what it draws behind a part of a prompt, which torch's generators there cannot.

        With linear attention it reads them in parts in any case.
        """
        on_cpu: bool = importlib.import_module("vllm.platforms").current_platform.is_cpu()
        return on_cpu and not overwrites_states(config)

    @property
    def name(self) -> Literal["vllm"]:
        """Its name in settings."""
        return "vllm"

    @property
    def context(self) -> int | None:
        """Tokens of the longest prompt and completion for which the engine has room."""
        limit: int = self._llm.llm_engine.model_config.max_model_len
        return limit

    def batches(self, requests: Sequence[Request], decoding: Decoding, batch_size: int) -> list[list[int]]:
        """Places of N requests as the engine is given them, whatever the batch size: it makes its own batches."""
        return plan(request_lengths(self.processor, requests), REQUESTS, TOKENS)

    def complete(self, requests: Sequence[Request], decoding: Decoding) -> list[list[str]]:
        """M completions for each of N requests; the draws of each have a seed of their own."""
        sampling = [
            self._vllm.SamplingParams(
                n=decoding.draws,
                temperature=decoding.temperature,
                top_p=1.0,
                top_k=0,
                repetition_penalty=1.0,
                seed=Random(f"request {place}/{decoding.seed}").getrandbits(32),
                max_tokens=decoding.max_new_tokens,
                logit_bias=dict.fromkeys(vision_token_ids(self.processor), -100.0) or None,
                detokenize=False,
            )
            for place in range(len(requests))
        ]
        decode = self.processor.tokenizer.batch_decode
        made = self._run(self._prompts(requests), sampling)
        return [decode([list(one.token_ids) for one in request.outputs], skip_special_tokens=True) for request in made]

    def first_token_log_probs(self, requests: Sequence[Request], allowed: Sequence[Sequence[int]]) -> list[list[float]]:
        """Log-probabilities of some first tokens of the reply to each of N requests, among these tokens alone."""
        sampling = [
            self._vllm.SamplingParams(
                temperature=0.0, max_tokens=1, allowed_token_ids=list(ids), logprobs=len(ids), detokenize=False
            )
            for ids in allowed
        ]
        made = self._run(self._prompts(requests, thinks=False), sampling)
        found = [request.outputs[0].logprobs[0] for request in made]
        return [[scores[token].logprob for token in ids] for scores, ids in zip(found, allowed, strict=True)]

    def reply_log_probs(self, requests: Sequence[Request], replies: Sequence[Sequence[int]]) -> list[float]:
        """Log-probability of the whole reply to each of N requests."""
        prompts = self._prompts(requests, thinks=False)
        for prompt, reply in zip(prompts, replies, strict=True):
            prompt["prompt_token_ids"] += reply
        sampling = self._vllm.SamplingParams(temperature=0.0, max_tokens=1, prompt_logprobs=1, detokenize=False)
        made = self._run(prompts, [sampling] * len(prompts))
        return [
            sum(scores[token].logprob for scores, token in zip(one.prompt_logprobs[-len(ids) :], ids, strict=True))
            for one, ids in zip(made, replies, strict=True)
        ]

    def _prompts(self, requests: Sequence[Request], *, thinks: bool = True) -> list[dict[str, Any]]:
        """Token ids with one placeholder an image, and the images in the size that our processor makes of them."""
        if not requests:
            return []  # chat templates take no empty batch
        opened = open_images((path for paths, _ in requests for path in paths), self.processor)
        pictures: dict[str, Image.Image] = {path: scaled(image, self.processor) for path, image in opened.items()}
        # In their last size. vLLM's own processor would scale some once more, as those below its smallest area then.
        as_given = {"mm_processor_kwargs": {"do_resize": False}} if is_sized_by_area(self.processor) else {}
        ids = unexpanded(self.processor, [chat(text, len(paths)) for paths, text in requests], thinks=thinks)
        return [
            {"prompt_token_ids": own, **_shown([pictures[path] for path in paths], as_given)}
            for own, (paths, _) in zip(ids, requests, strict=True)
        ]

    def _run(self, prompts: list[dict[str, Any]], sampling: list[Any]) -> list[Any]:
        if not prompts:
            return []
        with refusal(f"vLLM ended with an error ({WAY_OUT})", ANY):
            made: list[Any] = self._llm.generate(prompts, sampling, use_tqdm=False)
        return made


def _shown(pictures: list[Image.Image], settings: dict[str, Any]) -> dict[str, Any]:
    """The part of vLLM's prompt that holds its images; empty without any."""
    return {"multi_modal_data": {"image": pictures}, **settings} if pictures else {}
