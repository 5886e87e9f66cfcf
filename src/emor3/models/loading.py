"""Every `from_pretrained` of the package: code of a checkpoint never runs, and a damaged file is an error of one line.

A checkpoint's files are not ours, and transformers and peft raise whatever a damaged one leads them to. Some damage
they pass over: a broken `generation_config.json` is left out, and weights that are missing are drawn at random.
"""

import json
import warnings
from collections.abc import Iterable, Iterator
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path
from typing import Any

import torch
import transformers
from huggingface_hub.errors import StrictDataclassError
from jinja2 import TemplateError
from safetensors import SafetensorError, safe_open
from transformers import AutoConfig, PretrainedConfig

from emor3.errors import UserError, one_line


class TokenizerFaultError(Exception):
    """What the tokenizers library finds wrong with a file; its own errors are plain `Exception`."""


SAYS_WHAT = (OSError, ValueError, SafetensorError, StrictDataclassError, TemplateError, TokenizerFaultError, Warning)
"""Errors whose text alone says what is wrong."""
FAULTS = (
    *SAYS_WHAT,
    *(TypeError, AttributeError, LookupError, ArithmeticError, RuntimeError, AssertionError),
    *(ImportError, EOFError, MemoryError),
)
"""What a damaged or unfit file of a checkpoint leads the libraries to."""
LONGEST_REASON = 300

MODEL_TEXTS = ("config.json", "generation_config.json", "model.safetensors.index.json")
ADAPTER, ADAPTER_WEIGHTS = "adapter_config.json", "adapter_model.safetensors"
PROCESSOR_TEXTS = (
    *("processor_config.json", "preprocessor_config.json", "video_preprocessor_config.json"),
    *("chat_template.json", "chat_template.jinja"),
    *("tokenizer.json", "tokenizer_config.json", "special_tokens_map.json", "added_tokens.json", "vocab.json"),
)
INDEX = "model.safetensors.index.json"


@contextmanager
def refusal(doing: str, faults: tuple[type[Exception], ...] = FAULTS) -> Iterator[None]:
    """What goes wrong inside is raised as a UserError: `doing` (as "cannot load the processor of PATH") and why."""
    try:
        yield
    except faults as error:
        raise UserError(f"{doing}: {reason(error)}") from None


class TokenizerFaults(AbstractContextManager[None]):
    """Inside, the plain `Exception` that the tokenizers library raises has a name, and no other error is touched."""

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: object) -> None:
        """Raise TokenizerFaultError in place of a plain `Exception`."""
        if kind is Exception:
            raise TokenizerFaultError(str(error)) from None


def reason(error: Exception) -> str:
    """Why something went wrong, on one line."""
    if "trust_remote_code" in str(error):
        return "it brings Python code of its own (auto_map), and code in checkpoints is never run; use another model"
    if "ignore_mismatched_sizes" in str(error):
        return "its weights have other sizes than its config.json says"
    text = one_line(str(error))[:LONGEST_REASON] or "no reason given"
    return text if isinstance(error, SAYS_WHAT) else f"{type(error).__name__}: {text}"


def from_checkpoint(kind: Any, *where: Any, **settings: Any) -> Any:
    """`kind.from_pretrained`, without code of the checkpoint; every call of it in the package is this one.

    transformers would ask on standard input whether to run such code, and take a yes from there.
    """
    with _quiet():
        return kind.from_pretrained(*where, trust_remote_code=False, **settings)


def adapters_from(kind: Any, *where: Any) -> Any:
    """peft's `from_pretrained`, which knows no such code; adapters that the file lacks are an error here."""
    with _quiet(), warnings.catch_warnings():
        warnings.filterwarnings("error", message=".*missing adapter keys")
        return kind.from_pretrained(*where)


@contextmanager
def _quiet() -> Iterator[None]:
    """Without transformers' tables of what did not fit, over many lines: the error has one."""
    level = transformers.logging.get_verbosity()
    transformers.logging.set_verbosity_error()
    try:
        yield
    finally:
        transformers.logging.set_verbosity(level)


def load_config(source: str) -> PretrainedConfig:
    """Configuration of a checkpoint at a local path or hub name. Raises UserError if it cannot be used."""
    check_texts(Path(source), MODEL_TEXTS)
    with refusal(f"cannot read the configuration of {source}"):
        config: PretrainedConfig = from_checkpoint(AutoConfig, source)
        for part in (config, *(getattr(config, name, None) for name in config.sub_configs)):
            if "/" in str(getattr(part, "_attn_implementation", None)):
                raise ValueError("it names a kernel of the hub for its attention, and code in checkpoints is never run")
        return config


def check_texts(folder: Path, names: Iterable[str]) -> None:
    """Raise UserError if one of these files is in a local folder and holds no JSON object, or a template no text."""
    for path in (folder / name for name in names):
        if path.exists():
            with refusal(f"{path} is damaged (copy it anew)"):
                text = path.read_text(encoding="utf-8")
                if path.suffix == ".json" and not isinstance(json.loads(text), dict):
                    raise ValueError("it holds no JSON object")


def check_weights(folder: Path, finite: bool = False) -> None:
    """Raise UserError if a local folder's weights are not there, cut short or, if asked, not all finite.

    Without `finite` only the head of each file is read; with it all of them, one weight at a time.
    """
    for path in weight_files(folder):
        with refusal(f"{path} is damaged (copy it anew)"), safe_open(path, "pt") as file:
            for name in file.keys() if finite else ():
                if not is_finite(file.get_tensor(name)):
                    raise ValueError(f"{name} holds NaN or infinity")


def check_adapters(folder: Path) -> None:
    """Raise UserError if a local folder's adapters are not there or damaged; peft would ask the hub for them."""
    check_texts(folder, (ADAPTER,))
    if not (folder / ADAPTER_WEIGHTS).is_file():
        raise UserError(f"{folder} has no {ADAPTER_WEIGHTS}: copy it anew")
    with refusal(f"{folder / ADAPTER_WEIGHTS} is damaged (copy it anew)"), safe_open(folder / ADAPTER_WEIGHTS, "pt"):
        pass


def weight_files(folder: Path) -> list[Path]:
    """The safetensors files of a local folder, those that its index names if it has one. Raises UserError without."""
    check_texts(folder, (INDEX,))
    shards = {"model.safetensors"}
    if (folder / INDEX).is_file():
        with refusal(f"{folder / INDEX} is damaged (copy it anew)"):
            shards = set(json.loads((folder / INDEX).read_text(encoding="utf-8"))["weight_map"].values())
    missing = sorted(name for name in shards if Path(name).name != name or not (folder / name).is_file())
    if missing:
        pickled = any(folder.glob("*.bin"))
        way = "it has pickled weights only (*.bin), which are never loaded" if pickled else "copy it anew"
        raise UserError(f"cannot load {folder}: its weights are missing, {one_line(missing[0])}: {way}")
    return [folder / name for name in sorted(shards)]


def is_finite(weight: torch.Tensor) -> bool:
    """Whether a weight holds neither NaN nor infinity."""
    if not weight.is_floating_point():
        return True
    return bool(torch.isfinite(weight if weight.element_size() > 1 else weight.float()).all())
