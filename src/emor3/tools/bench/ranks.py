"""Processes that train one model together, sharded by FSDP2 as recipes/accelerate/fsdp2.yaml has it.

Accelerate shards on accelerators only and quietly turns FSDP2 on a CPU into copies (DDP): there its state is told
otherwise, and everything after that is accelerate's and PyTorch's own.
"""

import os
import socket
from typing import Any

import torch
from accelerate import PartialState
from accelerate.state import AcceleratorState
from accelerate.utils import DistributedType

FSDP2 = {
    "ACCELERATE_USE_FSDP": "true",
    "ACCELERATE_MIXED_PRECISION": "no",
    "FSDP_VERSION": "2",
    "FSDP_AUTO_WRAP_POLICY": "TRANSFORMER_BASED_WRAP",
    "FSDP_RESHARD_AFTER_FORWARD": "true",
    "FSDP_CPU_RAM_EFFICIENT_LOADING": "true",
    "FSDP_STATE_DICT_TYPE": "FULL_STATE_DICT",
}
"""What `accelerate launch` sets for its processes."""

_build = AcceleratorState.__init__


def free_port() -> int:
    """A port at which processes of this machine can meet."""
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return int(listener.getsockname()[1])


def join(rank: int, processes: int, port: int) -> None:
    """Make this process one of so many that meet at a port of this machine."""
    place = {"RANK": rank, "LOCAL_RANK": rank, "WORLD_SIZE": processes, "LOCAL_WORLD_SIZE": processes}
    os.environ |= {name: str(value) for name, value in place.items()}
    os.environ |= {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port), **FSDP2}
    if not torch.accelerator.is_available():
        os.environ["ACCELERATE_USE_CPU"] = "true"
        shard_on_cpu()
        PartialState(cpu=True)


def shard_on_cpu() -> None:
    """Have accelerate shard on a CPU, too."""

    def build(self: Any, *args: Any, fsdp_plugin: Any = None, **kwargs: Any) -> None:
        _build(self, *args, fsdp_plugin=fsdp_plugin, **kwargs)
        if fsdp_plugin is not None:
            self.fsdp_plugin = fsdp_plugin
            self.distributed_type = PartialState._shared_state["distributed_type"] = DistributedType.FSDP

    AcceleratorState.__init__ = build
