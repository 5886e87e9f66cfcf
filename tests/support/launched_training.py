"""`emor3` on one CPU process, or on two by DDP, FSDP2 or ZeRO-3, with completions scripted by their place in the batch.

Accelerate shards on accelerators only and quietly turns the last two on CPU into DDP; here its state is told otherwise,
and everything after that is accelerate's, DeepSpeed's, TRL's and our own code. Completions are sampled as ever, then
replaced, so that they differ inside a group and are the same however many processes draw them.
At each round of rollouts a rank adds a line to `counts0`, `counts1`: how often its policy's vision tower ran so far,
and how many batches had their completions packed into rows. Two processes pack what can be packed, one alone nothing.
Usage: launched_training.py train RECIPE [--resume]
"""

import math
import os
from pathlib import Path
from typing import Any

from accelerate import PartialState
from accelerate.state import AcceleratorState
from accelerate.utils import DistributedType
from torch.distributed.fsdp import FSDPModule

from emor3.cli.main import main
from emor3.tools.bench.ranks import shard_on_cpu
from emor3.training import trainer as training
from emor3.training.trainer import EmoTrainer

STEPS = "<step1>A {0} dog in the street.</step1><step2>It feels {0}.</step2><step3>High arousal.</step3>"
TEXTS = [
    *(STEPS.format("happy") + r"\boxed{amusement}", STEPS.format("sad") + r"\boxed{sadness}"),
    *(STEPS.format("big") + r"\boxed{fear}", "<step1>A dog.</step1>"),
    # The second half, which is the other process's: nothing that could be asked, and very unlike lengths.
    *(r"\boxed{awe}", "<step1></step1>" * 6, "", r"<step3>Calm.</step3>\boxed{contentment}"),
]
ZERO3 = "ACCELERATE_USE_DEEPSPEED" in os.environ
build, sample = AcceleratorState.__init__, training.shared_rollouts
pack, vision_runs, packed = training.pack, list[None](), list[None]()


def build_with_deepspeed(
    self: Any, mixed_precision: Any = None, cpu: bool = False, deepspeed_plugin: Any = None, **kwargs: Any
) -> None:
    if deepspeed_plugin is not None:
        PartialState._shared_state["distributed_type"] = DistributedType.DEEPSPEED
        deepspeed.comm.init_distributed("gloo", auto_mpi_discovery=False)
        zero = deepspeed_plugin.deepspeed_config["zero_optimization"]
        zero["stage3_param_persistence_threshold"] = 0  # shard small weights, too: the model has no others
    build(self, mixed_precision, False, deepspeed_plugin=deepspeed_plugin, **kwargs)


def scripted(prompts: list[Any], trainer: EmoTrainer) -> Any:
    state = PartialState()
    assert isinstance(trainer.model, FSDPModule) == ("FSDP_VERSION" in os.environ)
    assert all(weight.numel() == 0 for weight in trainer.model.parameters()) == ZERO3
    if trainer.state.global_step == 0:
        trainer.model.get_encoder(modality="image").register_forward_pre_hook(lambda *_: vision_runs.append(None))
    with (Path(trainer.args.output_dir).parent / f"counts{state.process_index}").open("a") as file:
        file.write(f"{len(vision_runs)} {len(packed)}\n")
    sampled = sample(prompts, trainer)
    tokenizer = trainer.processing_class.tokenizer
    first = state.process_index * len(prompts) + 3 * trainer.state.global_step  # other texts for each at each step
    texts = [TEXTS[(first + place) % len(TEXTS)] for place in range(len(prompts))]
    return sampled | {"completion_ids": [[*tokenizer(text)["input_ids"], tokenizer.eos_token_id] for text in texts]}


def pack_and_count(*arguments: Any) -> Any:
    packed.append(None)
    return pack(*arguments)


training.pack = pack_and_count
EmoTrainer.worthwhile = math.inf if "WORLD_SIZE" in os.environ else 0.0
if ZERO3:
    import deepspeed

    AcceleratorState.__init__ = build_with_deepspeed
else:
    shard_on_cpu()
training.shared_rollouts = scripted
if "WORLD_SIZE" in os.environ:
    assert PartialState(cpu=True).num_processes == 2, "real processes, not one that was silently started alone"
main()
