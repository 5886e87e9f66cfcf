"""EMO-R3's reinforcement stage: what TRL's GRPOTrainer lacks.

TRL samples, asks for the rewards (emor3.training.scorer), normalises them inside the group and updates. Here are
prompts that are computed once for their group, advantages of exactly zero for groups of equal rewards, dynamic
sampling, and the time split.
"""

import time
import warnings
from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, nullcontext
from functools import partial
from pathlib import Path
from random import Random
from typing import Any

import torch
from peft import PeftModel
from torch import Tensor
from transformers import PreTrainedModel, ProcessorMixin
from trl import GRPOConfig, GRPOTrainer
from trl.data_utils import prepare_multimodal_messages

from emor3.errors import UserError
from emor3.models.architectures import (
    IMAGE_INPUTS,
    IMAGES_OF_TILES,
    can_be_split,
    join_images,
    overwrites_states,
    split_images,
    takes_masks,
)
from emor3.models.checkpoints import learn_in_float32
from emor3.models.generation import unexpanded
from emor3.models.image_cache import EncodedImages
from emor3.models.packing.rows import PackedRows, pack, packed_inputs
from emor3.models.packing.work import WORTHWHILE, cheapest_rows, layer_work
from emor3.models.prefix_cache import continuing, distinct, plain, prefill
from emor3.models.processors import images_once, scaled
from emor3.models.sharding import on_any_rank, sharded
from emor3.printing import say
from emor3.training.callbacks import TIME
from emor3.training.dynamic_sampling import refill
from emor3.training.scorer import by_group, own_rows
from emor3.training.trl_config import SEPARATE, without_placeholders

EQUAL = 1e-6
"""Rewards of a group closer than this are equal: float32 sums of equal parts differ by about 1e-7."""


class Stopwatch:
    """Seconds spent per phase since the last read. Phases do not overlap: an inner one is not counted in the outer."""

    def __init__(self, clock: Callable[[], float] = time.perf_counter) -> None:
        self.clock = clock
        self.seconds: defaultdict[str, float] = defaultdict(float)

    @contextmanager
    def phase(self, name: str) -> Iterator[None]:
        """Count the time inside under `name`."""
        inner_before = sum(self.seconds.values())
        start = self.clock()
        try:
            yield
        finally:
            inner = sum(self.seconds.values()) - inner_before
            self.seconds[name] += self.clock() - start - inner

    def read(self) -> dict[str, float]:
        """Seconds by phase; starts again at zero."""
        seconds = dict(self.seconds)
        self.seconds.clear()
        return seconds


def equal_rewards(groups: Sequence[Sequence[Sequence[float]]]) -> Iterator[list[bool]]:
    """For every completion whether the rewards of its group are equal, each of them, up to the rounding of their sums.

    A completion has one reward, the total, or one for each part if advantages are separate. The totals of the second
    group are equal, its parts are not: it has advantages in the one case and none in the other.

    >>> list(equal_rewards([[[1.0], [0.0]], [[0.9], [0.9]]]))
    [[False, False], [True, True]]
    >>> list(equal_rewards([[[1.0, 0.5], [0.0, 0.5]], [[0.1, 0.8], [0.8, 0.1]]]))
    [[False, False], [False, False]]
    """
    return ([all(max(part) - min(part) < EQUAL for part in zip(*group, strict=True))] * len(group) for group in groups)


class EmoTrainer(GRPOTrainer):  # type: ignore[misc]
    """GRPOTrainer that computes each distinct prompt once, and gives groups of equal rewards advantages of zero.

    TRL repeats each prompt G times and computes every copy: in rollouts, in log-probabilities and in the update. Here
    the copies are computed once: by a cache of the prompt (`emor3.models.prefix_cache`), and in updates that can keep
    none by rows of several completions, as far as these pay (`emor3.models.packing`). vLLM does so by itself: its path
    is TRL's, with images as the engine takes them. The time of each phase goes to the logs.

    Rollouts go through TRL's public hook (`shared_rollouts`). The private methods are overridden because nothing public
    stands at these places; each calls TRL's own.

    A generation batch of 2 prompts with G = 3 completions each: N = 6 rows, P tokens of the longest prompt, T of the
    longest completion.

        prompt_ids, prompt_mask           (6, P)  padded on the left; rows 0-2 are one prompt, rows 3-5 the other
        completion_ids, completion_mask   (6, T)  padded on the right
        pixel_values                      (patches of the 6 images, numbers of a patch)
        ref_per_token_logps               (6, T)  if beta > 0
        rewards                           [1, 1, 0] and [0.9, 0.9, 0.9]
        advantages                        (6,)    [0.58, 0.58, -1.15] and [0, 0, 0]: (reward - mean) / deviation

    With `reward.advantages: separate` (GDPO, arXiv 2601.05242) TRL does so with each part alone, adds these up by their
    weights, and divides the sums by their deviation over the whole batch; a group is then one of equal rewards only if
    every part that weighs is equal inside it.
    """

    encoded: EncodedImages | None = None
    """Cache of vision-tower outputs for one generation batch, if vision is frozen."""
    worthwhile = WORTHWHILE
    """Share of the work of separate rows that packed ones may have."""
    most_in_a_row: int | None = None
    """Completions that a packed row may hold, once more of them did not fit into memory."""

    def __init__(
        self,
        model: PreTrainedModel,
        *,
        args: GRPOConfig,
        processing_class: ProcessorMixin,
        dynamic_sampling: int = 0,
        **kwargs: Any,
    ) -> None:
        """A loaded model with its processor, and TRL's other arguments; `dynamic_sampling` is that of a recipe.

        If `args` has no `generation_kwargs`, it gets those that keep image placeholders out of completions.
        """
        if args.generation_kwargs is None:
            args.generation_kwargs = without_placeholders(processing_class, args.use_vllm)
        self.stopwatch = Stopwatch()
        self.dynamic_sampling = dynamic_sampling
        self._dry: Tensor | None = None
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", "You are using 'rollout_func'")  # that TRL may change it: tests pin it
            super().__init__(
                model, args=args, processing_class=processing_class, rollout_func=shared_rollouts, **kwargs
            )
        learn_in_float32(self.model)

    def encode_images_once(self, *others: PreTrainedModel) -> None:
        """Have the policy, its reference and others with the same frozen vision encode each image of a batch once."""
        self.encoded = EncodedImages(on_any_rank if sharded(self) else bool)
        models = [self.model, self.ref_model, *others]
        for model in {id(found): found for m in models if m is not None if (found := plain(m))}.values():
            self.encoded.share(model)

    @contextmanager
    def evaluating_aside(self) -> Iterator[None]:
        """Inside, the policy may be evaluated: the time counts as a phase, the batch being learnt from is as before."""
        with self.stopwatch.phase("evaluate"), self.encoded.aside() if self.encoded else nullcontext():
            yield

    def training_step(self, model: Any, inputs: Any, num_items_in_batch: Tensor | None) -> Tensor:
        """One forward and backward pass, with the generation before it when it is due."""
        with self.stopwatch.phase("update"):
            loss: Tensor = super().training_step(model=model, inputs=inputs, num_items_in_batch=num_items_in_batch)
            return loss

    def _generate_and_score_completions(self, inputs: list[dict[str, Any]]) -> dict[str, Any]:
        if self.encoded is not None:
            self.encoded.forget()
        batch, dry = self._scored(inputs)
        if self.dynamic_sampling == 0:
            return batch
        batch, attempts = refill(
            batch,
            dry,
            self.processing_class.tokenizer.pad_token_id,
            self.dynamic_sampling,
            draw=lambda attempt: self._scored(self._other_inputs(len(inputs), attempt)),
            any_rank=lambda rows: bool(self.accelerator.gather(rows.any()[None]).any()),
        )
        batch["num_items_in_batch"] = self.accelerator.gather(batch["completion_mask"].sum()).sum()
        self._metrics["train"]["dynamic_sampling/attempts"].append(float(attempts))
        return batch

    def _scored(self, inputs: list[dict[str, Any]]) -> tuple[dict[str, Any], Tensor]:
        """TRL's scored batch with zero advantages in groups of equal rewards, and the rows (N,) of those groups."""
        self._dry = None
        with images_once(self.processing_class):
            batch: dict[str, Any] = super()._generate_and_score_completions(inputs=inputs)
        # Here too, beside the passes inside: dynamic sampling pads rows of batches by their width.
        width = batch["prompt_ids"].shape[1] + batch["completion_ids"].shape[1]
        batch |= _aligned(batch, width)
        assert self._dry is not None, "TRL asked for no rewards"
        assert len(self._dry) == len(batch["advantages"]), "these rewards are not those of the batch"
        batch["advantages"][self._dry] = 0.0
        if self.multi_objective_aggregation == SEPARATE:  # TRL's figure would be of the deviation over the batch
            share = self.accelerator.gather(self._dry.float()).mean().item()
            self._metrics["train"]["frac_reward_zero_std"][-1] = share
        return batch, self._dry

    def _other_inputs(self, count: int, attempt: int) -> list[dict[str, Any]]:
        """G copies each of other prompts, drawn so that a resumed run draws the same."""
        place = (self.args.seed, self.state.global_step, attempt, self.accelerator.process_index)
        rng = Random("/".join(map(str, place)))
        chosen = (
            self.train_dataset[rng.randrange(len(self.train_dataset))] for _ in range(count // self.num_generations)
        )
        return [row for row in chosen for _ in range(self.num_generations)]

    def _calculate_rewards(
        self, inputs: list[dict[str, Any]], prompts: list[Any], completions: list[Any], completion_ids_list: list[Any]
    ) -> Tensor:
        # A judge that the Trainer has not prepared computes like the policy: in the precision of the run.
        with self.stopwatch.phase("reflect"), self.accelerator.autocast():
            rewards: Tensor = super()._calculate_rewards(
                inputs=inputs, prompts=prompts, completions=completions, completion_ids_list=completion_ids_list
            )
        weights = self.reward_weights.to(rewards.device)
        separate = self.multi_objective_aggregation == SEPARATE
        compared = rewards[:, weights > 0].nan_to_num() if separate else (rewards * weights).nansum(1, keepdim=True)
        own = own_rows(compared.tolist(), len(inputs))
        self._dry = torch.tensor(by_group(own, self.num_generations, equal_rewards), device=rewards.device)
        return rewards

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
        images["num_images"] = images.get("num_images") or [0] * len(input_ids)  # TRL has none if no row has images
        if not sum(images["num_images"]):
            images = {name: value for name, value in images.items() if name not in IMAGE_INPUTS}
        images |= _aligned(images, input_ids.shape[1])
        given = {name: value for name, value in images.items() if value is not None}
        tokens = {"input_ids": input_ids, "attention_mask": attention_mask}
        tokens |= {name: value for name, value in given.items() if name.endswith("token_type_ids")}
        with self.stopwatch.phase("log_probs"):
            if not compute_aux_loss and can_be_split(given):
                pictures = split_images(given)
                if self._keeps_cache():
                    return self._from_cache(model, tokens, pictures, logits_to_keep, batch_size, compute_entropy)
                while packed := self._packed(model, tokens, pictures, logits_to_keep):
                    if found := self._from_packed(model, *packed, compute_entropy):
                        return found
            return super()._get_per_token_logps_and_entropies(
                model=model,
                input_ids=input_ids,
                attention_mask=attention_mask,
                logits_to_keep=logits_to_keep,
                batch_size=batch_size,
                compute_entropy=compute_entropy,
                compute_aux_loss=compute_aux_loss,
                **images,
            )

    def _keeps_cache(self) -> bool:
        """Whether a pass can keep a cache of its prompts.

        Checkpoints keep none, and shards are gathered for the gradients of outputs, not for those of a cache.
        """
        lost = self.args.gradient_checkpointing or sharded(self) or overwrites_states(plain(self.model).config)
        return not (torch.is_grad_enabled() and lost)

    def _from_cache(
        self,
        model: Any,
        tokens: dict[str, Tensor],
        pictures: Sequence[dict[str, Tensor]],
        completion: int,
        batch_size: int | None,
        compute_entropy: bool,
    ) -> tuple[Tensor, Tensor | None, None]:
        """Log-probabilities and entropies (N, T) by a cache for each distinct prompt, so many rows at a time."""
        count = len(pictures)
        outputs = []
        for start in range(0, count, batch_size or count):
            chunk = slice(start, start + (batch_size or count))
            chunk_tokens = {name: value[chunk] for name, value in tokens.items()}
            outputs.append(self._continue(model, chunk_tokens, pictures[chunk], completion))
        entropies = torch.cat([o.entropy[:, -completion:] for o in outputs]) if compute_entropy else None
        return torch.cat([o.log_probs[:, -completion:] for o in outputs]), entropies, None

    def _packed(
        self, model: Any, tokens: dict[str, Tensor], pictures: Sequence[dict[str, Tensor]], completion: int
    ) -> tuple[PackedRows, dict[str, Any]] | None:
        """Rows of several completions and the model's inputs for them; None if one row for each is as good or needed.

        Under shards, ranks need not agree on it: each way is one forward.
        """
        policy = self.accelerator.unwrap_model(model)
        if not takes_masks(policy.config):
            return None
        mask, prompt = tokens["attention_mask"], tokens["input_ids"].shape[1] - completion
        _, equal_to = _distinct_prompts({name: value[:, : prompt - 1] for name, value in tokens.items()}, pictures)
        asked, said = mask[:, :prompt].sum(1).tolist(), mask[:, prompt:].sum(1).tolist()
        work = layer_work(policy.config.get_text_config())
        members = cheapest_rows(equal_to, asked, said, work, self.worthwhile, self.most_in_a_row)
        if not members:
            return None
        rows = pack(mask, completion, members)
        inputs = packed_inputs(policy, rows, tokens, prompt, join_images([pictures[row[0]] for row in members]))
        return rows, inputs

    def _from_packed(
        self, model: Any, rows: PackedRows, inputs: dict[str, Any], compute_entropy: bool
    ) -> tuple[Tensor, Tensor | None, None] | None:
        """Log-probabilities and entropies (N, T) by a forward of packed rows; None if memory does not hold them.

        From then on rows hold half as many completions. On shards that is an error: other ranks wait for this forward.
        """
        try:
            with self.accelerator.autocast():
                output = model(**inputs, use_cache=False, fused_lm_head=True)
        except torch.OutOfMemoryError:
            if sharded(self):
                raise
            held = int(rows.parts.max())
            if self.most_in_a_row is None:
                say(
                    f"memory does not hold packed rows of {held} completions: from here on they are split until it does"
                )
            self.most_in_a_row = held // 2
            return None
        entropies = rows.by_completion(output.entropy) if compute_entropy else None
        return rows.by_completion(output.log_probs), entropies, None

    def _continue(
        self, model: Any, tokens: dict[str, Tensor], pictures: Sequence[dict[str, Tensor]], completion: int
    ) -> Any:
        """TRL's output for the last prompt token, whose logits give the first completion token, and the completion."""
        ids, mask = tokens["input_ids"], tokens["attention_mask"]
        cut = ids.shape[1] - completion - 1
        prompts = {name: value[:, :cut] for name, value in tokens.items()}
        first, equal_to = _distinct_prompts(prompts, pictures)
        inputs = {name: value[first] for name, value in prompts.items()}
        inputs |= join_images([pictures[place] for place in first])
        labels = ids[:, cut:].masked_fill(mask[:, cut:] == 0, -100)
        rows = torch.tensor(equal_to, device=ids.device)
        with self.accelerator.autocast():
            prefix = prefill(model, self.accelerator.unwrap_model(model), inputs)
            return model(**prefix.decode_inputs(rows, ids[:, cut:], mask[:, cut:]), labels=labels, fused_lm_head=True)

    def create_model_card(self, *args: Any, **kwargs: Any) -> None:
        """None: TRL's would tell of a "fine-tuned version of None"; `emor3 export` writes ours."""

    def _save(self, output_dir: str | None = None, state_dict: dict[str, Tensor] | None = None) -> None:
        """A checkpoint without the blank card that peft puts beside adapters."""
        super()._save(output_dir=output_dir, state_dict=state_dict)
        Path(output_dir or self.args.output_dir, "README.md").unlink(missing_ok=True)

    def _load_from_checkpoint(self, resume_from_checkpoint: str, model: Any = None) -> None:
        """Adapters only: full weights were loaded before, and the Trainer, which finds none of them, warns of each."""
        if isinstance(self.model, PeftModel):
            super()._load_from_checkpoint(resume_from_checkpoint=resume_from_checkpoint, model=model)

    def log(self, logs: dict[str, float], start_time: float | None = None) -> None:
        """TRL's log with the seconds of each phase since the last one."""
        seconds = {f"{TIME}{name}": value for name, value in self.stopwatch.read().items()}
        super().log(logs={**logs, **seconds}, start_time=start_time)


def _aligned(inputs: Mapping[str, Any], width: int) -> dict[str, Tensor]:
    """Those inputs that tell types of tokens, with one for each of the `width` tokens of a row.

    If a chat template writes the start of a text, TRL 1.16 has the processor write another one for them, so that they
    stand one place behind their tokens.
    """
    named = {name: value for name, value in inputs.items() if name.endswith("token_type_ids") and value is not None}
    return {name: value[:, -width:] for name, value in named.items()}


def _unpadded(ids: list[list[int]], fields: dict[str, Any], padding: int) -> tuple[list[list[int]], dict[str, Any]]:
    """Token ids of prompts and what the model takes beside them, without padding, which some processors begin with.

    >>> _unpadded([[9, 5, 6], [4, 5, 6]], {"mm_token_type_ids": [[0, 1, 0], [0, 1, 0]]}, padding=9)
    ([[5, 6], [4, 5, 6]], {'mm_token_type_ids': [[1, 0], [0, 1, 0]]})
    """
    pads = [next((place for place, token in enumerate(row) if token != padding), 0) for row in ids]
    cut = {
        name: [row[count:] for row, count in zip(rows, pads, strict=True)]
        for name, rows in fields.items()
        if name.endswith("token_type_ids")
    }
    return [row[count:] for row, count in zip(ids, pads, strict=True)], {**fields, **cut}


def _distinct_prompts(prompts: dict[str, Tensor], pictures: Sequence[dict[str, Tensor]]) -> tuple[list[int], list[int]]:
    """Places of the different ones among N prompts with their images, and for each of the N which of them it equals."""
    parts = zip(*prompts.values(), strict=True)
    return distinct([(*part, *picture.values()) for part, picture in zip(parts, pictures, strict=True)])


def shared_rollouts(prompts: list[Any], trainer: EmoTrainer) -> dict[str, Any]:
    """TRL's hook for rollouts: a completion for each of N prompts, of which equal neighbours share one prefill."""
    with trainer.stopwatch.phase("generate"):
        first, rows = runs(prompts)
        different = [prompts[place] for place in first]
        ids, images, fields = trainer._tokenize_prompts(prompts=different)
        tokenizer = trainer.processing_class.tokenizer
        if tokenizer.pad_token_id != tokenizer.bos_token_id:
            ids, fields = _unpadded(ids, fields, tokenizer.pad_token_id)
        sample = partial(trainer._generate_single_turn, num_generations=trainer.num_generations)
        if trainer.use_vllm:
            asked, shown = _for_vllm(trainer, different, ids, images)
            shown_to_all = shown and [shown[row] for row in rows]
            completions, log_probs = sample(
                prompt_ids=[asked[row] for row in rows], images=shown_to_all, multimodal_fields={}
            )
        else:
            with continuing(plain(trainer.model), torch.tensor(rows, device=trainer.accelerator.device)):
                completions, log_probs = sample(prompt_ids=ids, images=None, multimodal_fields=fields)
    return {"prompt_ids": [ids[row] for row in rows], "completion_ids": completions, "logprobs": log_probs}


def _for_vllm(trainer: EmoTrainer, prompts: list[Any], ids: list[list[int]], images: Any) -> tuple[Any, Any]:
    """Token ids and images of prompts as the engine takes them: with one token an image if it runs in this process."""
    processor = trainer.processing_class
    if trainer.vllm_mode == "colocate":
        chats = list(map(prepare_multimodal_messages, prompts))
        ids = unexpanded(processor, chats, chat_template=trainer.chat_template, **trainer.chat_template_kwargs)
    return ids, images and [[scaled(image, processor) for image in row or ()] or None for row in images]


def runs(prompts: Sequence[Any]) -> tuple[list[int], list[int]]:
    """First places of the runs of equal neighbours among N prompts, and for each of the N the number of its run.

    Two prompts with G = 2 completions each:

    >>> runs(["a", "a", "b", "b"])
    ([0, 2], [0, 0, 1, 1])
    """
    first: list[int] = []
    numbers: list[int] = []
    for place, prompt in enumerate(prompts):
        if not first or prompt != prompts[first[-1]]:
            first.append(place)
        numbers.append(len(first) - 1)
    return first, numbers
