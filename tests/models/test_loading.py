"""Whatever a checkpoint's files hold, none of their code runs, and what is damaged is told on one line."""

import ast
import json
import re
import shutil
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from transformers import GenerationConfig

import emor3
from emor3.errors import UserError
from emor3.models.checkpoints import load, save
from emor3.models.generation import generate
from emor3.models.loading import check_weights, load_config, refusal
from emor3.models.processors import load_processor
from emor3.tools.capacity import model_config
from emor3.tools.doctor import check_model

LOADING = ("from_pretrained", "from_config")


def loading_calls() -> Iterator[Any]:
    """Every call that transformers or peft load with: its module, and its source."""
    for path in sorted(Path(emor3.__file__).parent.rglob("*.py")):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.Attribute) and node.attr in LOADING:
                assert isinstance(node.ctx, ast.Load)
            if isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute) and node.func.attr in LOADING:
                yield path.stem, node


def test_every_call_that_loads_from_a_checkpoint_says_that_its_code_must_not_run() -> None:
    calls = list(loading_calls())
    assert {module for module, call in calls if call.func.attr == "from_pretrained"} == {"loading"}
    for module, call in calls:
        said = {keyword.arg: ast.unparse(keyword.value) for keyword in call.keywords}
        adapters = module == "loading" and not any(keyword.arg is None for keyword in call.keywords)  # peft's
        assert adapters or said["trust_remote_code"] == "False", f"{module}: {ast.unparse(call)}"


def test_loading_calls_are_never_passed_around_uncalled() -> None:
    for path in sorted(Path(emor3.__file__).parent.rglob("*.py")):
        tree = ast.parse(path.read_text(encoding="utf-8"))
        called = {id(node.func) for node in ast.walk(tree) if isinstance(node, ast.Call)}
        named = [node for node in ast.walk(tree) if isinstance(node, ast.Attribute) and node.attr in LOADING]
        assert all(id(node) in called for node in named), path


def edit(folder: Path, name: str, change: Any) -> None:
    content = json.loads((folder / name).read_text())
    change(content)
    (folder / name).write_text(json.dumps(content))


CODE = {
    "config": (
        "config.json",
        lambda c: c.update(model_type="x", auto_map={"AutoConfig": "own.C", "AutoModelForImageTextToText": "own.M"}),
    ),
    "processor": (
        "processor_config.json",
        lambda c: c.update(processor_class="OwnP", auto_map={"AutoProcessor": "own.P"}),
    ),
    "image processor": (
        "processor_config.json",
        lambda c: c["image_processor"].update(image_processor_type="OwnI", auto_map={"AutoImageProcessor": "own.I"}),
    ),
    "model of a known type": ("config.json", lambda c: c.update(auto_map={"AutoModelForImageTextToText": "own.M"})),
    "tokenizer": (
        "tokenizer_config.json",
        lambda c: c.update(tokenizer_class="OwnT", auto_map={"AutoTokenizer": ["own.T", None]}),
    ),
}


@pytest.mark.parametrize("place", CODE)
def test_code_in_a_checkpoint_never_runs_and_nobody_is_asked(
    random_checkpoint: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, place: Any
) -> None:
    folder = shutil.copytree(random_checkpoint, tmp_path / "model")
    edit(folder, *CODE[place])
    (folder / "own.py").write_text(f"open({str(tmp_path / 'ran')!r}, 'w')\n")
    asked = []
    monkeypatch.setattr("builtins.input", lambda prompt="": asked.append(prompt) or "yes")
    for look in (load, check_model, load_processor, lambda path: model_config(path, None), load_config):
        with suppress(UserError):
            look(str(folder))
    assert (asked, (tmp_path / "ran").exists()) == ([], False)
    if place not in ("model of a known type", "tokenizer"):  # which load as the known classes that they are
        with pytest.raises(UserError, match="code in checkpoints is never run"):
            load(str(folder))


def test_a_kernel_of_the_hub_that_a_checkpoint_names_is_code_too(random_checkpoint: str, tmp_path: Path) -> None:
    folder = shutil.copytree(random_checkpoint, tmp_path / "model")
    edit(folder, "config.json", lambda c: c.update(attn_implementation="somebody/kernel"))
    with pytest.raises(UserError, match=r"names a kernel of the hub.*never run"):
        load(str(folder))


def put(name: str, content: bytes) -> Callable[[Any], Any]:
    return lambda folder: (folder / name).write_bytes(content)


def cut(name: str) -> Callable[[Any], None]:
    def spoil(folder: Path) -> None:
        content = (folder / name).read_bytes()
        (folder / name).write_bytes(content[: len(content) // 2])

    return spoil


def with_weights(change: Callable[[Any, Any], Any]) -> Callable[[Any], None]:
    def spoil(folder: Path) -> None:
        weights = load_file(folder / "model.safetensors")
        change(weights, sorted(name for name, weight in weights.items() if weight.dim() == 2))
        save_file(weights, folder / "model.safetensors", metadata={"format": "pt"})

    return spoil


def index(content: str) -> Callable[[Any], None]:
    def spoil(folder: Path) -> None:
        (folder / "model.safetensors").rename(folder / "model-00001-of-00002.safetensors")
        (folder / "model.safetensors.index.json").write_text(content)

    return spoil


def changed(name: str, change: Callable[[Any], Any]) -> Callable[[Any], None]:
    return lambda folder: edit(folder, name, change)


TEXTS = ("config.json", "generation_config.json", "processor_config.json", "tokenizer.json", "tokenizer_config.json")
DAMAGE = {
    **{f"{name} holds a list": (put(name, b"[1]"), f"{name} is damaged") for name in TEXTS},
    **{f"{name} cut short": (cut(name), f"{name} is damaged") for name in TEXTS},
    "a byte that is no text": (put("config.json", b'{"model_type": "\xff"}'), "config.json is damaged"),
    "an object that is no tokenizer": (
        put("tokenizer.json", b'{"added_tokens": [], "model": 1}'),
        "cannot load the processor of",
    ),
    "no processor": (lambda folder: (folder / "processor_config.json").unlink(), "cannot load the processor"),
    "weights cut short": (cut("model.safetensors"), "model.safetensors is damaged"),
    "weights empty": (put("model.safetensors", b""), "model.safetensors is damaged"),
    "weights missing": (lambda folder: (folder / "model.safetensors").unlink(), "its weights are missing"),
    "NaN": (with_weights(lambda weights, names: weights[names[3]][0].fill_(torch.nan)), "holds NaN or infinity"),
    "infinity": (with_weights(lambda weights, names: weights[names[3]][0].fill_(torch.inf)), "holds NaN or infinity"),
    "one weight missing": (with_weights(lambda weights, names: weights.pop(names[3])), "1 of its weights are missing"),
    "one weight too small": (
        with_weights(lambda weights, names: weights.update({names[3]: weights[names[3]][1:].clone()})),
        "other sizes than its config.json says",
    ),
    "a part of the weights missing": (
        index('{"weight_map": {"a": "model-00002-of-00002.safetensors"}}'),
        "model-00002-of-00002.safetensors",
    ),
    "an index that leads out": (index('{"weight_map": {"a": "../x.safetensors"}}'), "../x.safetensors"),
    "an index without a map": (index("{}"), "model.safetensors.index.json is damaged"),
    "sizes that are words": (changed("config.json", lambda c: c["text_config"].update(hidden_size="x")), "hidden_size"),
    "no heads": (changed("config.json", lambda c: c["text_config"].update(num_attention_heads=0)), "cannot load"),
    "patches of another model": (
        changed("processor_config.json", lambda c: c["image_processor"].update(patch_size=14)),
        "cuts patches of 14 pixels",
    ),
}


@pytest.mark.parametrize("case", DAMAGE)
def test_a_damaged_checkpoint_is_told_on_one_line_in_loading_and_in_doctor(
    random_checkpoint: str, tmp_path: Path, case: str
) -> None:
    spoil, message = DAMAGE[case]
    folder = shutil.copytree(random_checkpoint, tmp_path / "model")
    spoil(folder)
    with pytest.raises(UserError) as told:
        load(str(folder))
    check = check_model(str(folder))
    assert check.status == "fail"
    for line in (str(told.value), check.detail):
        assert message in line
        assert "\n" not in line


def test_pickled_weights_are_no_weights_for_doctor_either(random_checkpoint: str, tmp_path: Path) -> None:
    folder = shutil.copytree(random_checkpoint, tmp_path / "model")
    torch.save(load_file(folder / "model.safetensors"), folder / "pytorch_model.bin")
    (folder / "model.safetensors").unlink()
    check = check_model(str(folder))
    assert (check.status, "pickled weights only" in check.detail) == ("fail", True)


def test_of_the_generation_settings_that_a_checkpoint_brings_only_tokens_count_and_are_saved(
    random_checkpoint: str, tmp_path: Path
) -> None:
    """transformers takes them for whatever a call leaves open: rollouts, evaluation and judges would decode by them."""
    folder = shutil.copytree(random_checkpoint, tmp_path / "model")
    own = {"eos_token_id": [2, 0], "pad_token_id": 0, "bos_token_id": 1}
    ways = {"do_sample": True, "temperature": 1e-6, "repetition_penalty": 1.05, "min_p": 0.5, "no_repeat_ngram_size": 2}
    edit(folder, "generation_config.json", lambda c: c.update(own | ways))
    model, processor = load(str(folder))
    assert model.generation_config.to_diff_dict() == GenerationConfig(**own, use_cache=True).to_diff_dict()
    save(model, processor, tmp_path / "saved")
    assert GenerationConfig.from_pretrained(tmp_path / "saved").to_diff_dict() == model.generation_config.to_diff_dict()


def test_a_checkpoint_as_training_saves_it_needs_no_generation_config(random_checkpoint: str, tmp_path: Path) -> None:
    folder = shutil.copytree(random_checkpoint, tmp_path / "model")
    (folder / "generation_config.json").unlink()
    edit(folder, "config.json", lambda c: [part.update(use_cache=False) for part in (c, c["text_config"])])
    edit(folder, "config.json", lambda c: c["text_config"].pop("eos_token_id"))
    model, processor = load(str(folder))
    assert check_model(str(folder)).status == "ok"
    settings = model.generation_config
    assert (settings.use_cache, settings.eos_token_id) == (True, processor.tokenizer.eos_token_id)
    assert len(generate(model, processor, [((), "What is felt?")], max_new_tokens=2)) == 1


def test_token_ids_that_are_words_are_refused(random_checkpoint: str, tmp_path: Path) -> None:
    folder = shutil.copytree(random_checkpoint, tmp_path / "model")
    edit(folder, "generation_config.json", lambda c: c.update(eos_token_id="end"))
    with pytest.raises(UserError, match=r"eos_token_id in generation_config\.json must be a token's number"):
        load(str(folder))


def test_whole_weights_are_read_once_and_pass(random_checkpoint: str) -> None:
    check_weights(Path(random_checkpoint), finite=True)


def text_config(**settings: Any) -> Callable[[Any], None]:
    return changed("config.json", lambda c: c["text_config"].update(settings))


def tokenizer(**settings: Any) -> Callable[[Any], None]:
    return changed("tokenizer.json", lambda c: c.update(settings))


RAISED = {
    "by tokenizers": (tokenizer(version="x"), "Unknown tokenizer version 'x'"),
    "by tokenizers, on a text": (
        tokenizer(model={"type": "WordLevel", "vocab": {"a": 0}, "unk_token": "b"}, added_tokens=[]),
        "WordLevel error: Missing [UNK] token from the vocabulary",
    ),
    "OSError": (changed("processor_config.json", lambda c: c.update(image_processor=None)), "Can't load image proc"),
    "ValueError": (changed("tokenizer_config.json", lambda c: c.update(padding_side="x")), "Padding side should be"),
    "StrictDataclassError": (text_config(layer_types=["x"]), "The `layer_types` entries must be"),
    "AttributeError": (tokenizer(added_tokens="x"), "AttributeError: 'str' object has no attribute"),
    "TypeError": (tokenizer(added_tokens=None), "TypeError: 'NoneType' object is not iterable"),
    "KeyError": (text_config(hidden_act="x"), "KeyError: 'x'"),
    "IndexError": (changed("config.json", lambda c: c.update(dtype=[])), "IndexError: list index out of range"),
    "ZeroDivisionError": (text_config(num_attention_heads=0), "ZeroDivisionError: integer division"),
    "RuntimeError": (text_config(intermediate_size=-1), "RuntimeError: Trying to create tensor with negative"),
    "AssertionError": (text_config(pad_token_id=10**6), "AssertionError: Padding_idx must be within"),
    "ImportError": (
        changed("config.json", lambda c: c.update(quantization_config={"quant_method": "hqq"})),
        "ImportError: A",
    ),
}
"""A file that leads transformers to each kind of error, and what is told of it."""


@pytest.mark.parametrize("kind", RAISED)
def test_each_kind_of_error_that_the_libraries_raise_is_told_on_one_line(
    random_checkpoint: str, tmp_path: Path, kind: str
) -> None:
    spoil, message = RAISED[kind]
    folder = shutil.copytree(random_checkpoint, tmp_path / "model")
    spoil(folder)
    with pytest.raises(UserError, match=re.escape(message)) as told:
        load(str(folder))
    assert str(folder) in str(told.value)
    assert "\n" not in str(told.value)


def test_a_lack_of_memory_or_of_the_rest_of_a_file_is_told_too() -> None:
    for error in (MemoryError(), EOFError("the file ends")):
        with pytest.raises(UserError, match=f"cannot load x: {type(error).__name__}: "), refusal("cannot load x"):
            raise error


def test_an_error_of_our_own_is_no_fault_of_a_checkpoint() -> None:
    for error in (NameError("ours"), StopIteration("ours"), Exception("ours")):
        with pytest.raises(type(error), match="ours"), refusal("cannot load"):
            raise error


TURN = "{% for m in messages %}{{ m['role'] }}: {% for p in m['content'] %}"
TEMPLATES = {
    "absent": (None, "has no chat template"),
    "empty": ("", "has no chat template"),
    "drops images": (TURN + "{% if p['type'] == 'text' %}{{ p['text'] }}{% endif %}{% endfor %}{% endfor %}", "images"),
    "drops texts": (TURN + "<|image_pad|>{% endfor %}{% endfor %}", "does not keep the text of a turn"),
    "joins strings": ("{% for m in messages %}{{ m['role'] + m['content'] }}{% endfor %}", "cannot be used"),
    "prints lists": ("{% for m in messages %}{{ m['content'] }}{% endfor %}", "do not go together"),
    "broken": ("{% for m in messages %}", "cannot be used"),
    "divides by nothing": ("{{ 1 / 0 }}", "cannot be used"),
    "includes": ("{% include 'other' %}", "cannot be used"),
    "calls itself": ("{% macro a() %}{{ a() }}{% endmacro %}{{ a() }}", "cannot be used"),
}


@pytest.mark.parametrize("case", TEMPLATES)
def test_a_chat_template_that_does_not_fit_is_named_before_anything_is_made(
    random_checkpoint: str, tmp_path: Path, case: str
) -> None:
    template, message = TEMPLATES[case]
    folder = shutil.copytree(random_checkpoint, tmp_path / "model")
    (folder / "chat_template.jinja").unlink()
    if template is not None:
        (folder / "chat_template.jinja").write_text(template)
    with pytest.raises(UserError, match=message) as told:
        load_processor(str(folder))
    assert "chat template" in str(told.value)
    assert "chat_template.jinja" in str(told.value)
    assert check_model(str(folder)).detail[:100] == str(told.value)[:100]


@pytest.mark.parametrize("token", ["pad_token", "eos_token"])
def test_a_tokenizer_without_padding_or_an_end_is_refused(random_checkpoint: str, tmp_path: Path, token: str) -> None:
    folder = shutil.copytree(random_checkpoint, tmp_path / "model")
    edit(folder, "tokenizer_config.json", lambda c: c.pop(token))
    with pytest.raises(UserError, match=f"has no {token}: name one in its tokenizer_config.json"):
        load_processor(str(folder))
