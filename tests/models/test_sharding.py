"""Sharded weights without real processes: what is refused, and how models are loaded beside them."""

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from peft import LoraConfig, get_peft_model
from transformers.integrations.deepspeed import is_deepspeed_zero3_enabled, set_hf_deepspeed_config

from emor3.errors import UserError
from emor3.models.checkpoints import load
from emor3.models.sharding import check_resumable, check_shardable, loading_whole


class Zero3:
    """Stands for the settings of a training under ZeRO-3, which transformers knows by a weak reference."""

    def is_zero3(self) -> bool:
        return True


def test_models_are_loaded_whole_while_a_zero3_training_is_set_up(random_checkpoint: str) -> None:
    settings = Zero3()
    set_hf_deepspeed_config(settings)
    with loading_whole():
        assert not is_deepspeed_zero3_enabled()
    assert is_deepspeed_zero3_enabled()
    assert all(weight.numel() for weight in load(random_checkpoint)[0].parameters())  # or it would ask for DeepSpeed
    del settings
    assert not is_deepspeed_zero3_enabled()


def trainer_of(engine: Any, model: Any = None) -> Any:
    return SimpleNamespace(
        is_fsdp_enabled=engine == "fsdp2",
        is_deepspeed_enabled=engine == "zero3",
        accelerator=SimpleNamespace(num_processes=2),
        model=model,
    )


@pytest.mark.parametrize("engine", ["fsdp2", "zero3"])
def test_adapters_and_a_moving_average_need_whole_weights(engine: str) -> None:
    adapted = get_peft_model(torch.nn.Sequential(torch.nn.Linear(2, 2)), LoraConfig(target_modules=["0"]))
    check_shardable(trainer_of("ddp", adapted), ema=True)
    check_shardable(trainer_of(engine))
    with pytest.raises(UserError, match=r"model\.lora cannot be merged from shards"):
        check_shardable(trainer_of(engine, adapted))
    with pytest.raises(UserError, match=r"judge\.model ema cannot follow shards"):
        check_shardable(trainer_of(engine), ema=True)


RANKS = ["global_step2/zero_pp_rank_0_optim_states.pt", "global_step2/zero_pp_rank_1_optim_states.pt"]
OPTIMIZER = {"ddp": ["optimizer.pt"], "fsdp2": ["optimizer.bin"], "zero3": RANKS}


@pytest.mark.parametrize("engine", OPTIMIZER)
def test_a_run_goes_on_only_from_an_optimizer_that_was_split_in_the_same_way(tmp_path: Path, engine: Any) -> None:
    for other in OPTIMIZER.keys() - {engine}:
        write(tmp_path, OPTIMIZER[other])
    with pytest.raises(UserError, match="has no optimizer that this run could go on with"):
        check_resumable(trainer_of(engine), tmp_path)
    write(tmp_path, OPTIMIZER[engine])
    check_resumable(trainer_of(engine), tmp_path)


def test_deepspeed_goes_on_only_with_as_many_processes(tmp_path: Path) -> None:
    write(tmp_path, [*RANKS, "global_step2/zero_pp_rank_2_optim_states.pt"])
    with pytest.raises(UserError, match="as many processes"):
        check_resumable(trainer_of("zero3"), tmp_path)


def write(folder: Path, names: list[str]) -> None:
    for name in names:
        (folder / name).parent.mkdir(exist_ok=True)
        (folder / name).touch()
