"""Load, freeze, merge and save a policy: any image-text-to-text checkpoint, full or LoRA."""

import re
from collections.abc import Mapping, Sequence
from importlib.resources import files
from importlib.util import find_spec
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, Literal

import torch
import transformers
from huggingface_hub import get_hf_file_metadata, hf_hub_url, try_to_load_from_cache
from huggingface_hub.errors import HfHubHTTPError, HTTPError
from huggingface_hub.utils import are_progress_bars_disabled, enable_progress_bars
from peft import PeftModel
from PIL import Image
from torch.nn.modules.batchnorm import _NormBase
from transformers import (
    AutoModelForImageTextToText,
    BitsAndBytesConfig,
    GenerationConfig,
    PretrainedConfig,
    PreTrainedModel,
    ProcessorMixin,
)

from emor3.errors import UserError
from emor3.models.architectures import PARTS, is_sized_by_area
from emor3.models.loading import adapters_from, check_weights, from_checkpoint, is_finite, load_config, refusal
from emor3.models.processors import chat, load_processor, save_processor
from emor3.models.settings import ModelBlock, Part
from emor3.models.sharding import loading_whole


def hide_loading_bars() -> None:
    """Keep the bars that transformers draws while it reads and writes weights off the output; downloads show theirs."""
    shown = not are_progress_bars_disabled()
    transformers.logging.disable_progress_bar()  # which takes those of downloads, too
    if shown:
        enable_progress_bars()


hide_loading_bars()  # once, here, through which all commands load

EMBEDDED, HARD = "embedded", "embedded-hard"
"""Names of the base checkpoints that ship with the package: of the easy domains, and of the hard ones."""
NAMED_TOKENS = ("bos_token_id", "eos_token_id", "pad_token_id")
"""What is read of a checkpoint's generation settings."""
PACKAGED = {EMBEDDED: "checkpoint", HARD: "hard_checkpoint"}
"""Names of the packaged checkpoints, and their folders in `tiny`."""


def resolve_checkpoint(path: str) -> str:
    """Local folder or hub name of a checkpoint, also of a packaged one by name. Raises UserError on a missing path."""
    if path in PACKAGED:
        return str(files("emor3") / "tiny" / PACKAGED[path])
    folder = Path(path)
    if (folder / "adapter_config.json").is_file() and not (folder / "config.json").is_file():
        raise UserError(f"{path} holds adapters, no whole model: `emor3 export {path} OUT` merges them, then give OUT")
    if folder.exists() and not (folder / "config.json").is_file():
        raise UserError(f"{path} is not a checkpoint: it has no config.json; give a folder saved by save_pretrained")
    if not folder.exists() and (folder.is_absolute() or path.startswith((".", "~")) or path.count("/") != 1):
        raise UserError(f"no checkpoint at {path}: give a folder, a hub name such as org/model, or {EMBEDDED!r}")
    if not folder.exists():
        _ask_hub(path)
    return path


def _ask_hub(name: str) -> None:
    """Raise UserError at once if a hub name leads nowhere; transformers tries every file again for minutes."""
    if isinstance(try_to_load_from_cache(name, "config.json"), str):
        return
    try:
        get_hf_file_metadata(hf_hub_url(name, "config.json"), timeout=10)
    except HfHubHTTPError as error:
        raise UserError(f"no folder {name}, and the hub gives no such model: {_first_line(error)}") from None
    except (HTTPError, OSError) as error:
        reason = _first_line(error)
        raise UserError(f"no folder {name}, and the hub cannot be reached ({reason}): offline, give a folder") from None


def _first_line(error: Exception) -> str:
    return next(iter(str(error).splitlines()), type(error).__name__)


def load(
    path: str, dtype: str = "auto", quantize: Literal["4bit"] | None = None
) -> tuple[PreTrainedModel, ProcessorMixin]:
    """Model (in eval mode, on the accelerator if there is one) and processor of a checkpoint.

    `quantize` holds its linear layers in 4 bits, for adapters to be trained on (QLoRA; see `check_quantizable`).
    Only safetensors weights and no code from the checkpoint are loaded. Raises UserError if it cannot be loaded.
    """
    source = resolve_checkpoint(path)
    load_config(source)  # first: if the model is unknown, the processor is too
    processor = load_processor(source)
    model = _read(path, source, dtype, four_bit_config() if quantize else None)
    check_fit(model.config, processor, path)
    _complete_generation(model, processor, path)
    # Some vision towers also name layers of a text tower, which accelerate would look for in vain before sharding.
    present = {type(module).__name__ for module in model.modules()}
    model._no_split_modules = present.intersection(model._no_split_modules or ())
    _teach_padding_token(model)
    _keep_statistics(model)
    if quantize:
        return model.eval(), processor  # quantized where it is, on this process's accelerator, and has to stay there
    device = torch.accelerator.current_accelerator() if torch.accelerator.is_available() else torch.device("cpu")
    return model.to(device).eval(), processor


def _teach_padding_token(model: PreTrainedModel) -> None:
    """Let the padding token learn: torch gives it no gradient, and often it is also the token that ends a turn.

    Padding is masked, so it has no gradient anyway. A row of zeros was never trained; its gradients would explode in
    the first norm, so it stays as it is.
    """
    embeddings = model.get_input_embeddings()
    if embeddings.padding_idx is not None and embeddings.weight[embeddings.padding_idx].any():
        embeddings.padding_idx = None


def _keep_statistics(model: torch.nn.Module) -> None:
    """Have batch normalisation use its running statistics in training, too, and leave them as they are.

    With those of a batch the log-probability of a row would depend on the rows beside it, and differ from that of
    rollouts; and adapters, which save no statistics of frozen layers, would resume and merge to another model.
    """
    for module in model.modules():
        if isinstance(module, _NormBase) and module.running_mean is not None:
            module.register_forward_pre_hook(_in_eval_mode)  # at each call: trainers put the whole model in train mode


def _in_eval_mode(module: torch.nn.Module, _: Any) -> None:
    module.training = False


def _read(path: str, source: str, dtype: str, quantization: BitsAndBytesConfig | None = None) -> PreTrainedModel:
    model = _built(path, source, dtype=dtype, quantization_config=quantization)
    broken = next((name for name, weight in model.named_parameters() if not is_finite(weight)), None)
    if broken is not None:
        raise UserError(f"cannot load {path}: its weight {broken} holds NaN or infinity")
    _forget_decoding(model)
    return model


def _forget_decoding(model: PreTrainedModel) -> None:
    """Keep the tokens that a checkpoint's generation settings name, and none of its ways to decode.

    transformers takes from there whatever a call leaves open, rollouts included: one published model brings
    a repetition penalty of 1.05 and a temperature of 1e-6, others `min_p`, beams or bans. Here recipes and options say
    how to decode, and what is saved decodes by default as it was trained and evaluated.
    """
    brought = model.generation_config
    model.generation_config = GenerationConfig(**{name: getattr(brought, name, None) for name in NAMED_TOKENS})


def check_folder(folder: Path) -> None:
    """Raise UserError if a local checkpoint has not all weights of its model in their sizes, whole and finite.

    One weight at a time is read, so that a model of any size can be looked at.
    """
    _built(str(folder), str(folder), device_map="meta")
    check_weights(folder, finite=True)


def _built(path: str, source: str, **settings: Any) -> PreTrainedModel:
    config = load_config(source)
    if Path(source).is_dir():
        check_weights(Path(source))
    with refusal(f"cannot load {path} as an image-text-to-text model"), loading_whole():
        model, found = from_checkpoint(
            AutoModelForImageTextToText,
            source,
            config=config,
            use_safetensors=True,
            output_loading_info=True,
            **settings,
        )
        if missing := found["missing_keys"]:
            raise ValueError(f"{len(missing)} of its weights are missing, as {min(missing)}")
    return model


def check_fit(config: PretrainedConfig, processor: ProcessorMixin, path: str) -> None:
    """Raise UserError if a model cannot read what the processor makes of a prompt with an image."""
    patch = getattr(config.vision_config, "patch_size", None)
    if is_sized_by_area(processor) and (cut := processor.image_processor.patch_size) != patch:
        raise UserError(f"{path}: the processor cuts patches of {cut} pixels, the model reads patches of {patch}")
    words, rows = len(processor.tokenizer), config.get_text_config().vocab_size
    if words > rows:
        raise UserError(f"{path}: the tokenizer has {words} tokens, the model only {rows}")
    prompt = processor.apply_chat_template([chat("What is felt?", 1)], tokenize=False, add_generation_prompt=True)
    inputs = processor(text=prompt, images=[Image.new("RGB", (64, 64))])
    if config.image_token_id not in inputs["input_ids"][0]:
        raise UserError(f"{path}: no image token {config.image_token_id} of the model in its prompts")


def _complete_generation(model: PreTrainedModel, processor: ProcessorMixin, path: str) -> None:
    """What a checkpoint without `generation_config.json` leaves open. Raises UserError for token ids that are none.

    Its config.json, as training saves it, would have completions made without a cache, which ours are not.
    """
    settings, tokenizer = model.generation_config, processor.tokenizer
    settings.use_cache = True
    for name in ("eos_token_id", "pad_token_id"):
        given = getattr(settings, name)
        if not all(isinstance(token, int) for token in (given if isinstance(given, list) else [given or 0])):
            raise UserError(f"{path}: {name} in generation_config.json must be a token's number, found {given!r}")
    settings.eos_token_id = tokenizer.eos_token_id if settings.eos_token_id is None else settings.eos_token_id
    settings.pad_token_id = tokenizer.pad_token_id if settings.pad_token_id is None else settings.pad_token_id


def check_quantizable() -> None:
    """Raise UserError if QLoRA cannot run: without bitsandbytes, or a GPU.

    On CPUs with AVX-512 BF16 bitsandbytes 0.50 packs weights for inference, and gives no gradients from then on.
    """
    if find_spec("bitsandbytes") is None:
        raise UserError("model.quantize 4bit needs bitsandbytes: pip install -e '.[qlora]' in emor3's clone")
    if not torch.accelerator.is_available():
        raise UserError("model.quantize 4bit needs a GPU, and there is none: leave model.quantize out")


def four_bit_config() -> BitsAndBytesConfig:
    """How QLoRA quantizes (Dettmers et al. 2023)."""
    return BitsAndBytesConfig(
        load_in_4bit=True,
        bnb_4bit_quant_type="nf4",
        bnb_4bit_use_double_quant=True,
        bnb_4bit_compute_dtype=torch.bfloat16,
    )


def merge(policy: PreTrainedModel | PeftModel, start: str, settings: ModelBlock) -> PreTrainedModel:
    """The policy as one plain model: its adapters, if it has any, merged into the model it started from.

    Merging into 4-bit layers rounds what was learnt, so there the start model is read again as it was, on the CPU.
    """
    if not isinstance(policy, PeftModel):
        return policy
    if settings.quantize is None:
        return policy.merge_and_unload()
    with TemporaryDirectory() as scratch:
        policy.save_pretrained(scratch)
        base = _read(start, resolve_checkpoint(start), settings.dtype)
        return adapters_from(PeftModel, base, scratch).merge_and_unload()


def save(
    model: PreTrainedModel | PeftModel,
    processor: ProcessorMixin,
    folder: str | Path,
    weights: Mapping[str, torch.Tensor] | None = None,
) -> None:
    """Save weights (safetensors; the model's own, or those given) and processor in plain Hugging Face format.

    Of a policy with adapters the adapters alone are saved, without the blank card that peft puts beside them.
    """
    if weights is not None:  # gathered from shards, tied weights are copies that would be written twice
        weights = {name: value for name, value in weights.items() if name not in model.all_tied_weights_keys}
    model.save_pretrained(folder, state_dict=weights)
    if isinstance(model, PeftModel):
        Path(folder, "README.md").unlink(missing_ok=True)
    save_processor(processor, folder)


def learn_in_float32(model: torch.nn.Module) -> None:
    """Hold the weights that learn in float32: an update of 1e-6 is lost in bfloat16, which keeps 8 bits of a weight.

    Autocast still computes in bfloat16. Adapters on 4-bit weights are bfloat16 otherwise, as TRL makes them.
    """
    for parameter in model.parameters():
        if parameter.requires_grad:
            parameter.data = parameter.data.float()


def part_parameters(model: PreTrainedModel, part: Part) -> list[torch.nn.Parameter]:
    """Parameters of a part. Raises UserError if no name of the model is one of the part's (`architectures.PARTS`)."""
    found = [parameter for name, parameter in model.named_parameters() if re.fullmatch(PARTS[part], name)]
    if not found:
        raise UserError(f"model.freeze: {type(model).__name__} has no part that we know as its {part}: leave it out")
    return found


def freeze(model: PreTrainedModel, parts: Sequence[Part]) -> None:
    """Freeze parts of a model for training. Raises UserError if it has no such part."""
    for part in parts:
        for parameter in part_parameters(model, part):
            parameter.requires_grad_(False)


def frozen_modules(parts: Sequence[Part]) -> str | None:
    """Pattern of frozen modules, which get no adapters, as peft takes it; None if nothing is frozen."""
    return "|".join(PARTS[part] for part in parts) or None


def vision_is_frozen(model: torch.nn.Module) -> bool:
    """Whether no weight and no adapter of the vision tower or the projector learns."""
    parts = "|".join(PARTS.values())
    return not any(p.requires_grad and re.fullmatch(parts, name) for name, p in model.named_parameters())
