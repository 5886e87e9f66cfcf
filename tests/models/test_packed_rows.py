"""Completions that share a row under a tree mask have the log-probabilities, entropies and gradients of their own."""

from collections.abc import Iterator
from copy import deepcopy
from pathlib import Path
from typing import Any

import pytest
import torch
from bitsandbytes.nn import Linear4bit
from peft import LoraConfig, get_peft_model
from PIL import Image
from torch import Tensor
from torch.nn.attention.flex_attention import BlockMask, create_mask
from torch.nn.utils.rnn import pad_sequence
from transformers import AutoConfig, PreTrainedModel
from transformers.integrations.sdpa_attention import sdpa_attention_forward
from transformers.modeling_utils import ALL_ATTENTION_FUNCTIONS
from trl.trainer.utils import add_fused_lm_head

from architectures import HERE, write_checkpoint
from emor3.errors import UserError
from emor3.models.architectures import (
    FLEX,
    IMAGE_INPUTS,
    SHAREABLE_INPUTS,
    image_blocks,
    layer_kinds,
    published_config,
    takes_masks,
)
from emor3.models.checkpoints import EMBEDDED, load
from emor3.models.generation import encode
from emor3.models.packing.blocks import set_attention
from emor3.models.packing.rows import PackedRows, pack, packed_inputs, tree_masks
from emor3.models.packing.work import cheapest_rows, layer_work, shared_out

COMPLETIONS = [[7, 2, 9, 4, 1], [3], [2, 8, 5, 6, 0], [], [9, 9, 1], [4, 7]]
"""Lengths of the completions of two prompts, three each: the fourth was truncated, and is masked as a whole."""

UNPACKED = ("qwen3_5", "gemma3n", "gemma4", "lfm2_vl")
"""Families whose masks were not tried."""


@pytest.fixture(scope="module", params=[name for name in HERE if name not in UNPACKED])
def family(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> tuple[str, Any, Any]:
    folder = tmp_path_factory.mktemp(request.param)
    write_checkpoint(request.param, folder)
    model, processor = load(str(folder))
    add_fused_lm_head(model, temperature=0.7, outputs=("log_probs", "entropy"))
    model.train()
    return request.param, model, processor


def rows_of(processor: Any, folder: Path) -> tuple[dict[str, Tensor], list[Tensor]]:
    """Inputs (6, P + T) for one row a completion without their images, and the images of each prompt.

    The second prompt is much longer than the first, and longer than a sliding window of 64 tokens.
    """
    paths = []
    for name in "ab":
        Image.effect_noise((64, 64), 80).convert("RGB").save(path := folder / f"{name}.png")
        paths.append(str(path))
    asked = [((paths[0],), "What is felt?"), ((paths[1],), "Which of these feelings would it evoke? " * 6)]
    prompts = encode(processor, asked)
    own = [torch.tensor(tokens, dtype=torch.long) + 300 for tokens in COMPLETIONS]
    ends = {"input_ids": pad_sequence(own, batch_first=True)}
    ends["attention_mask"] = pad_sequence([torch.ones_like(tokens) for tokens in own], batch_first=True)
    tokens = {
        name: torch.cat([value.repeat_interleave(3, 0), ends.get(name, 0 * ends["input_ids"])], 1)
        for name, value in prompts.items()
        if name in SHAREABLE_INPUTS - IMAGE_INPUTS
    }
    return tokens, {name: value for name, value in prompts.items() if name not in tokens}


def images_of(images: dict[str, Tensor], heads: list[int]) -> dict[str, Tensor]:
    """Images of the prompts (0 or 1) that rows have; both are of the same size."""
    return {name: torch.cat([value.chunk(2)[head] for head in heads]) for name, value in images.items()}


def learnt_from(model: PreTrainedModel, log_probs: Tensor, entropy: Tensor) -> dict[str, Tensor]:
    """Gradients of a loss in which every token of every completion weighs something else."""
    model.zero_grad()
    weights = torch.linspace(-1, 2, log_probs.numel()).view(log_probs.shape)
    ((weights * log_probs).sum() + (weights.flip(0) * entropy).sum()).backward()
    return {name: weight.grad.clone() for name, weight in model.named_parameters() if weight.grad is not None}


def assert_packs_alike(
    model: PreTrainedModel, processor: Any, folder: Path, most: int = 3, learning: bool = True
) -> None:
    """Values of rows that hold so many completions, and their gradients, against those of separate rows."""
    tokens, images = rows_of(processor, folder)
    mask, ids = tokens["attention_mask"], tokens["input_ids"]
    labels = ids.masked_fill(mask == 0, -100)
    labels[:, :-5] = -100
    members = shared_out([0, 0, 0, 1, 1, 1], most)
    rows = pack(mask, 5, members)
    shown = images_of(images, [row[0] // 3 for row in members])
    with torch.set_grad_enabled(learning):
        separate = model(**tokens, **images_of(images, [0, 0, 0, 1, 1, 1]), labels=labels, fused_lm_head=True)
        wanted = separate.log_probs[:, -5:], separate.entropy[:, -5:]
        gradients = learnt_from(model, *wanted) if learning else {}
        inputs = packed_inputs(model, rows, tokens, ids.shape[1] - 5, shown)
        packed = model(**inputs, use_cache=False, fused_lm_head=True)
        found = rows.by_completion(packed.log_probs), rows.by_completion(packed.entropy)
        again = learnt_from(model, *found) if learning else {}

    for one, other in zip(found, wanted, strict=True):
        torch.testing.assert_close(one, other, atol=1e-5, rtol=1e-5)
        assert other[mask[:, -5:] == 0].eq(0).all()
        assert other[mask[:, -5:] == 1].abs().min() > 0.1
    assert again.keys() == gradients.keys()
    assert not learning or max(float(gradient.abs().max()) for gradient in gradients.values()) > 0.1
    for weight, gradient in gradients.items():
        close = 2e-5 * max(1.0, float(gradient.abs().max()))  # sums of another order, of numbers up to 96 (four bits)
        torch.testing.assert_close(again[weight], gradient, atol=close, rtol=1e-3, msg=weight)


@pytest.mark.parametrize("checkpointing", [False, True], ids=["", "checkpointed"])
@pytest.mark.parametrize(("most", "attention"), [(3, "sdpa"), (2, "eager")], ids=["all", "two and one"])
def test_packed_rows_give_what_separate_rows_give(
    family: tuple[str, Any, Any], tmp_path: Path, checkpointing: bool, most: int, attention: str
) -> None:
    name, model, processor = family
    model.set_attn_implementation(attention)
    assert takes_masks(model.config)
    if name == "llava_onevision":
        _, images = rows_of(processor, tmp_path)
        assert not images.keys() <= SHAREABLE_INPUTS  # tiles of a picture: the trainer takes TRL's way
        return
    (model.gradient_checkpointing_enable if checkpointing else model.gradient_checkpointing_disable)()
    assert_packs_alike(model, processor, tmp_path, most)


@pytest.fixture
def uncompiled() -> Iterator[None]:
    """FlexAttention as it stands, which torch would compile first: a CPU may have no compiler."""
    with torch.compiler.set_stance("force_eager"):
        yield


def dense_masks(model: PreTrainedModel, rows: PackedRows, tokens: dict[str, Tensor], attention: str) -> dict[str, Any]:
    """Masks of a model's layers by kind, as attention of this name gets them."""
    model.set_attn_implementation(attention)
    heads = {name: value[rows.heads, :-5] for name, value in tokens.items()}
    positions = rows.positions(heads["attention_mask"].cumsum(1) - 1)
    types = {name: rows.tokens(value) for name, value in tokens.items() if name.endswith("token_type_ids")}
    blocks = image_blocks(model.config, types)
    return tree_masks(model.config.get_text_config(), rows, positions, blocks, torch.float32)


@pytest.mark.usefixtures("uncompiled")
def test_blocks_hide_what_the_tree_mask_hides(family: tuple[str, Any, Any], tmp_path: Path) -> None:
    _, model, processor = family
    tokens, _ = rows_of(processor, tmp_path)
    rows = pack(tokens["attention_mask"], 5, shared_out([0, 0, 0, 1, 1, 1], 3))
    dense, blocks = (dense_masks(model, rows, tokens, name) for name in ("sdpa", FLEX))
    count, length = rows.parts.shape
    assert dense.keys() == blocks.keys() == layer_kinds(model.config.get_text_config())
    for kind, mask in blocks.items():
        assert isinstance(mask, BlockMask)
        assert torch.equal(create_mask(mask.mask_mod, count, 1, length, length, "cpu"), dense[kind])
        assert 0 < dense[kind].sum() < dense[kind].numel()


def attend_densely(
    module: Any, query: Tensor, key: Tensor, value: Tensor, mask: BlockMask, **settings: Any
) -> tuple[Tensor, None]:
    """FlexAttention for a CPU, where torch's has no gradients: SDPA under the mask that the blocks stand for."""
    sizes = len(query), 1, query.shape[2], key.shape[2]
    return sdpa_attention_forward(module, query, key, value, create_mask(mask.mask_mod, *sizes, "cpu"), **settings)


@pytest.mark.parametrize("learning", [False, True], ids=["flex attention", "a dense stand-in, checkpointed"])
@pytest.mark.usefixtures("uncompiled")
def test_packed_rows_that_attend_by_blocks_give_what_separate_rows_give(
    family: tuple[str, Any, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, learning: bool
) -> None:
    name, model, processor = family
    if name == "llava_onevision":
        return  # nothing of it is packed, see above
    model.set_attn_implementation(FLEX)
    (model.gradient_checkpointing_enable if learning else model.gradient_checkpointing_disable)()
    kinds: list[type] = []
    flex = attend_densely if learning else ALL_ATTENTION_FUNCTIONS["flex_attention"]

    def counted(module: Any, query: Tensor, key: Tensor, value: Tensor, mask: Any, **settings: Any) -> Any:
        kinds.append(type(mask))
        return flex(module, query, key, value, mask, **settings)

    monkeypatch.setitem(ALL_ATTENTION_FUNCTIONS, "flex_attention", counted)
    assert_packs_alike(model, processor, tmp_path, learning=learning)
    layers = model.config.get_text_config().num_hidden_layers
    assert kinds == [BlockMask] * layers * (1 + learning)  # of packed rows alone; a layer computed again gets it again


def test_attention_by_blocks_needs_a_gpu_and_a_model_that_packs_rows(
    family: tuple[str, Any, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    _, model, _ = family
    with pytest.raises(UserError, match=r"flex_attention needs a GPU, and there is none: leave model.attention out"):
        set_attention(model, "flex_attention")
    monkeypatch.setattr(torch.accelerator, "is_available", lambda: True)
    set_attention(model, "flex_attention")
    assert model.config.get_text_config()._attn_implementation == FLEX
    monkeypatch.setattr("emor3.models.packing.blocks.takes_masks", lambda config: False)
    with pytest.raises(UserError, match=r"is for packed rows, and \w+ has none: leave it out"):
        set_attention(model, "flex_attention")
    set_attention(model, "eager")
    assert model.config.get_text_config()._attn_implementation == "eager"


def test_a_saved_model_does_not_name_our_attention(family: tuple[str, Any, Any], tmp_path: Path) -> None:
    _, model, _ = family
    model.set_attn_implementation(FLEX)
    model.config.save_pretrained(tmp_path)
    assert "_flex" not in (tmp_path / "config.json").read_text()


@pytest.mark.parametrize("checkpointing", [False, True], ids=["", "checkpointed"])
def test_packed_rows_give_the_same_by_adapters_on_four_bits(
    random_checkpoint: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, checkpointing: bool
) -> None:
    monkeypatch.setattr("bitsandbytes.nn.modules.has_avx512bf16", lambda: False)  # packed weights give no gradients
    base, processor = load(random_checkpoint, quantize="4bit")
    for layer in base.modules():
        if isinstance(layer, Linear4bit):
            layer.compute_dtype = torch.float32  # bfloat16 rounds sums of another order by more than we look for
    add_fused_lm_head(base, temperature=0.7, outputs=("log_probs", "entropy"))
    policy = get_peft_model(base, LoraConfig(r=2, target_modules="all-linear", init_lora_weights=False))
    if checkpointing:
        base.gradient_checkpointing_enable()
    policy.train()
    assert_packs_alike(base, processor, tmp_path)
    assert all("lora" in name for name, weight in policy.named_parameters() if weight.grad is not None)


def test_a_model_whose_attention_or_layers_take_no_such_masks_is_left_to_trl(family: tuple[str, Any, Any]) -> None:
    _, model, _ = family
    config = deepcopy(model.config)
    config.get_text_config().layer_types = ["linear_attention", "full_attention"]
    assert not takes_masks(config)
    config = deepcopy(model.config)
    config._attn_implementation = "flash_attention_2"
    assert not takes_masks(config)


def test_another_family_is_left_to_trl() -> None:
    assert not takes_masks(AutoConfig.for_model("paligemma"))


NARROW = layer_work(load(EMBEDDED)[0].config.get_text_config())
WORDS = 60
"""Tokens of a prompt beside those of the image."""


@pytest.mark.parametrize(("visual", "rows"), [(16, []), (1024, [[0, 1, 2, 3]])])
def test_four_completions_share_a_row_behind_a_large_image_and_not_behind_a_small_one(
    visual: int, rows: list[list[int]]
) -> None:
    assert cheapest_rows([0] * 4, [visual + WORDS] * 4, [96] * 4, NARROW) == rows


def test_rows_hold_some_of_the_completions_if_all_would_see_too_many_pairs() -> None:
    # A token costs 256 pairs. Eight rows of 124 + 96 tokens: 8 * 220 * (256 + 220) = 837,760. Four of 123 + 2 * 96:
    # 4 * 315 * (256 + 315) = 719,460; two of 507: 773,682; one of 891: 1,021,977.
    assert NARROW.token == 256 * NARROW.pair
    assert cheapest_rows([0] * 8, [64 + WORDS] * 8, [96] * 8, NARROW) == [[0, 1], [2, 3], [4, 5], [6, 7]]


def test_a_wide_model_gains_also_from_a_short_prompt() -> None:
    config = published_config("Qwen/Qwen2.5-VL-3B-Instruct")
    assert config is not None
    wide = layer_work(config.get_text_config())
    assert cheapest_rows([0] * 8, [16 + WORDS] * 8, [96] * 8, wide) == [list(range(8))]


def test_different_prompts_share_nothing_and_uneven_groups_what_they_can() -> None:
    assert cheapest_rows([0, 1, 2], [1000] * 3, [10] * 3, NARROW) == []
    assert cheapest_rows([0, 1, 0, 0], [1000] * 4, [10, 10, 0, 20], NARROW) == [[0, 2, 3], [1]]
