"""Weights split over processes (FSDP2, ZeRO-3): loaded whole, split by the trainer, whole again when they are saved."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from peft import PeftModel
from torch import Tensor
from transformers import Trainer
from transformers.integrations import deepspeed

from emor3.errors import UserError


def sharded(trainer: Trainer) -> bool:
    """Whether a trainer splits weights, so that all ranks must take part in every forward and every look at them."""
    return bool(trainer.is_fsdp_enabled or trainer.is_deepspeed_enabled)


def check_shardable(trainer: Trainer, *, ema: bool = False) -> None:
    """Raise UserError if a trainer splits weights that adapters or a moving average need whole."""
    if not sharded(trainer):
        return
    if isinstance(trainer.model, PeftModel):
        raise UserError("model.lora cannot be merged from shards: start it with recipes/accelerate/ddp.yaml instead")
    if ema:
        raise UserError("judge.model ema cannot follow shards: start it with recipes/accelerate/ddp.yaml instead")


def check_resumable(trainer: Trainer, checkpoint: Path) -> None:
    """Raise UserError if a checkpoint's optimizer was split in another way: it could not be read."""
    if trainer.is_deepspeed_enabled:
        found = len(list(checkpoint.glob("global_step*/*optim_states.pt"))) == trainer.accelerator.num_processes
    else:
        found = (checkpoint / ("optimizer.bin" if trainer.is_fsdp_enabled else "optimizer.pt")).is_file()
    if not found:
        raise UserError(
            f"{checkpoint} has no optimizer that this run could go on with: start it with the accelerate configuration "
            "that wrote it, with DeepSpeed also with as many processes"
        )


def whole_weights(trainer: Trainer) -> dict[str, Tensor] | None:
    """Weights of a trained policy, gathered from all ranks, which must all call this; None if adapters learnt."""
    if isinstance(trainer.model, PeftModel):
        return None
    weights: dict[str, Tensor] = trainer.accelerator.get_state_dict(trainer.model_wrapped)
    return weights


@contextmanager
def loading_whole() -> Iterator[None]:
    """Inside, models are loaded whole on each process, also once a training under ZeRO-3 has been set up.

    Transformers would split what it loads, whatever `zero3_init_flag` says, and until DeepSpeed has the model it could
    neither run nor be copied.
    """
    training = deepspeed._hf_deepspeed_config_weak_ref
    deepspeed.unset_hf_deepspeed_config()
    try:
        yield
    finally:
        deepspeed._hf_deepspeed_config_weak_ref = training
