"""GRPO in which the G completions of a prompt share it: one processor call, one image encoding and one prefill.

TRL repeats each prompt G times and computes every copy: in rollouts, in log-probabilities and in the update. Here the
copies are computed once (`emor3.models.prefix_cache`). vLLM does so by itself: its path is TRL's, with images as the
engine takes them.
"""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from peft import PeftModel
from torch import Tensor
from transformers import PreTrainedModel
from trl import GRPOTrainer
from trl.data_utils import prepare_multimodal_messages

from emor3.errors import UserError
from emor3.models.architectures import IMAGE_INPUTS, IMAGES_OF_TILES, SHAREABLE_INPUTS, join_images, split_images
from emor3.models.generation import unexpanded
from emor3.models.image_cache import EncodedImages
from emor3.models.prefix_cache import distinct, prefill
from emor3.models.processors import images_once, scaled
from emor3.models.sharding import sharded


class SharedPromptTrainer(GRPOTrainer):  # type: ignore[misc]
    """GRPOTrainer that computes each distinct prompt once.

    The private methods are overridden because nothing public stands at these places; each falls back to TRL's own.
    """

    _runs: tuple[list[int], list[int]]
    """Of the last prompts: places of the distinct ones, and which of them each of the N rows has."""
    _unexpanded: list[list[int]]
    """Of the distinct ones where vLLM runs in this process: their tokens with one for each image."""
    encoded: EncodedImages | None = None
    """The encodings of a round, where vision does not learn."""

    def encode_images_once(self, *others: PreTrainedModel) -> None:
        """Have the policy, its reference and others whose vision is the same encode each image of a round once."""
        self.encoded = EncodedImages()
        models = [self.model, self.ref_model, *others]
        for model in {id(plain): plain for m in models if m is not None if (plain := _plain(m))}.values():
            self.encoded.share(model)

    def _generate_and_score_completions(self, inputs: list[dict[str, Any]]) -> dict[str, Any]:
        with images_once(self.processing_class):
            batch: dict[str, Any] = super()._generate_and_score_completions(inputs)
        return batch

    def _tokenize_prompts(self, prompts: list[Any]) -> Any:
        self._runs = first, rows = _runs(prompts)
        different = [prompts[place] for place in first]
        ids, images, fields = super()._tokenize_prompts(different)
        if self.use_vllm:
            images = images and [[scaled(image, self.processing_class) for image in row or ()] for row in images]
        if self.use_vllm and self.vllm_mode == "colocate":
            self._unexpanded = unexpanded(
                self.processing_class,
                list(map(prepare_multimodal_messages, different)),
                chat_template=self.chat_template,
                **self.chat_template_kwargs,
            )
        # Processors take no None for a row without images, as TRL 1.16 hands them beside rows that have some.
        return [ids[row] for row in rows], images and [images[row] or [] for row in rows], fields

    def _generate_single_turn(
        self, prompt_ids: list[list[int]], images: Any, fields: dict[str, Any], *args: Any, **kwargs: Any
    ) -> Any:
        first, rows = self._runs
        if self.use_vllm or self.use_transformers_continuous_batching:
            if self.use_vllm and self.vllm_mode == "colocate":
                prompt_ids = [self._unexpanded[row] for row in rows]
            shown = images and [row or None for row in images]
            return super()._generate_single_turn(prompt_ids, shown, fields, *args, **kwargs)
        with continuing(_plain(self.model), torch.tensor(rows, device=self.accelerator.device)):
            return super()._generate_single_turn([prompt_ids[place] for place in first], None, fields, *args, **kwargs)

    def _get_per_token_logps_and_entropies(
        self,
        model: Any,
        input_ids: Tensor,
        attention_mask: Tensor,
        logits_to_keep: int,
        batch_size: int | None = None,
        compute_entropy: bool = False,
        compute_aux_loss: bool = False,
        **images: Any,
    ) -> Any:
        counts = images.pop(IMAGES_OF_TILES, None)  # unknown to TRL 1.16: 1 if absent
        if counts is not None and counts.max() > 1:
            raise UserError("TRL cannot train this model on rows with several images: keep one in each row")
        images["num_images"] = images.get("num_images") or [0] * len(input_ids)  # TRL has none where no row has images
        if not sum(images["num_images"]):
            images = {name: value for name, value in images.items() if name not in IMAGE_INPUTS}
        given = {name: value for name, value in images.items() if value is not None}
        # Checkpoints keep no cache, and shards are gathered for the gradients of outputs, not for those of a cache.
        uncached = self.args.gradient_checkpointing or sharded(self)
        understood = given.keys() <= SHAREABLE_INPUTS | {"num_images"}
        if (uncached and torch.is_grad_enabled()) or compute_aux_loss or not understood:
            return super()._get_per_token_logps_and_entropies(
                model,
                input_ids,
                attention_mask,
                logits_to_keep,
                batch_size,
                compute_entropy,
                compute_aux_loss,
                **images,
            )
        tokens = {"input_ids": input_ids, "attention_mask": attention_mask}
        tokens |= {name: value for name, value in given.items() if name.endswith("token_type_ids")}
        pictures = split_images(given)
        outputs = []
        for start in range(0, len(input_ids), batch_size or len(input_ids)):
            chunk = slice(start, start + (batch_size or len(input_ids)))
            chunk_tokens = {name: value[chunk] for name, value in tokens.items()}
            outputs.append(self._continue(model, chunk_tokens, pictures[chunk], logits_to_keep))
        entropies = torch.cat([o.entropy[:, -logits_to_keep:] for o in outputs]) if compute_entropy else None
        return torch.cat([o.log_probs[:, -logits_to_keep:] for o in outputs]), entropies, None

    def _continue(
        self, model: Any, tokens: dict[str, Tensor], pictures: Sequence[dict[str, Tensor]], completion: int
    ) -> Any:
        """TRL's output for the last prompt token, whose logits give the first completion token, and the completion."""
        ids, mask = tokens["input_ids"], tokens["attention_mask"]
        cut = ids.shape[1] - completion - 1
        prompts = {name: value[:, :cut] for name, value in tokens.items()}
        parts = zip(*prompts.values(), strict=True)
        first, equal_to = distinct([(*part, *picture.values()) for part, picture in zip(parts, pictures, strict=True)])
        inputs = {name: value[first] for name, value in prompts.items()}
        inputs |= join_images([pictures[place] for place in first])
        labels = ids[:, cut:].masked_fill(mask[:, cut:] == 0, -100)
        rows = torch.tensor(equal_to, device=ids.device)
        with self.accelerator.autocast():
            prefix = prefill(model, self.accelerator.unwrap_model(model), inputs)
            return model(**prefix.decode_inputs(rows, ids[:, cut:], mask[:, cut:]), labels=labels, fused_lm_head=True)


def _runs(prompts: list[Any]) -> tuple[list[int], list[int]]:
    """First places of the runs of equal neighbours among N prompts, and for each of the N the number of its run."""
    first: list[int] = []
    runs: list[int] = []
    for place, prompt in enumerate(prompts):
        if not first or prompt != prompts[first[-1]]:
            first.append(place)
        runs.append(len(first) - 1)
    return first, runs


def _plain(model: Any) -> PreTrainedModel:
    return model.get_base_model() if isinstance(model, PeftModel) else model


@contextmanager
def continuing(model: PreTrainedModel, rows: Tensor) -> Iterator[None]:
    """Inside, `model.generate` on B prompts reads them once and samples one completion for each of N `rows`."""
    whole = model.generate

    def generate(input_ids: Tensor, attention_mask: Tensor, generation_config: Any, **images: Tensor) -> Tensor:
        inputs = {"input_ids": input_ids, "attention_mask": attention_mask, **images}
        cut = {name: value[:, :-1] if value.shape == input_ids.shape else value for name, value in inputs.items()}
        prefix = prefill(model, model, cut)
        last = prefix.decode_inputs(rows, input_ids[rows, -1:], attention_mask[rows, -1:])
        last["input_ids"] = input_ids[rows]  # generate looks at whole prompts, and runs what the cache lacks
        completed: Tensor = whole(**last, generation_config=generation_config)
        return completed

    model.generate = generate
    try:
        yield
    finally:
        del model.generate
