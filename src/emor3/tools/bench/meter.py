"""What one training step took: seconds, positions, forwards, images."""

import resource
import time
from collections.abc import Sequence
from dataclasses import dataclass, field, fields
from typing import Any, Protocol

import torch
from transformers import PreTrainedModel, ProcessorMixin, TrainerCallback, set_seed
from transformers.image_utils import make_flat_list_of_images
from trl import GRPOTrainer

from emor3.models.architectures import images_encoded


@dataclass
class StepCost:
    """What one step took. Positions are those that pass through the language model, padding included."""

    seconds: float = 0.0
    cpu_seconds: float = 0.0
    """Seconds of this process on the CPU: what a loaded machine does not stretch."""
    update_cpu_seconds: float = 0.0
    """Of these, the update: the loss and its gradients, after rollouts, their log-probabilities and rewards."""
    reward_cpu_seconds: float = 0.0
    """Of these, the rewards: nearly all of it reflection, if there is any."""
    positions: int = 0
    forwards: int = 0
    encoded: int = 0
    """Images that passed through a vision tower."""
    processed: int = 0
    """Images that passed through the image processor, in this many calls."""
    calls: int = 0
    peak_mib: float = 0.0
    """Most memory of the process so far, libraries included; on an accelerator what was allocated in the step."""
    libraries_mib: float = 0.0
    """Of this, what the process had taken before training; 0 on an accelerator."""
    updates: dict[str, float] = field(default_factory=dict)
    """CPU seconds of the update by each of our ways, if all were tried (`emor3.tools.bench.updates`)."""
    chosen: str = ""
    """Which of these the step takes; its other seconds are those of a step that takes this way alone."""


def together(costs: Sequence[StepCost]) -> StepCost:
    """The cost of a step that several processes took at the same time: all their work, and the most of time and memory.

    Which ways were tried is left out: only one process tries them.

    >>> together([StepCost(seconds=2.0, positions=10), StepCost(seconds=3.0, positions=5)]).positions
    15
    """
    most = {"seconds", "peak_mib", "libraries_mib"}
    names = {field.name for field in fields(StepCost)} - {"updates", "chosen"}
    values = {name: [getattr(cost, name) for cost in costs] for name in names}
    return StepCost(**{name: max(found) if name in most else sum(found) for name, found in values.items()})


class Turns(Protocol):
    """Where a worker says that it is ready or what a step took, and waits for its turn."""

    def send(self, message: Any, /) -> None: ...

    def recv(self) -> Any: ...


class Meter(TrainerCallback):  # type: ignore[misc]
    """Callback that runs one step at each turn, and reports its cost."""

    def __init__(self, pipe: Turns, seed: int) -> None:
        self.pipe = pipe
        self.seed = seed
        self.cost = StepCost()
        self.start = self.cpu_start = self.rollouts = self.aside = self.libraries = 0.0

    def count(self, model: PreTrainedModel) -> None:
        """Count the forwards of a model's language model and vision tower."""
        model.get_decoder().register_forward_pre_hook(self._decoder, with_kwargs=True)
        model.get_encoder(modality="image").register_forward_pre_hook(self._tower, with_kwargs=True)

    def count_images(self, processor: ProcessorMixin) -> None:
        """Count the images that a processor prepares."""
        preprocess = processor.image_processor.preprocess

        def counted(images: Any, *args: Any, **kwargs: Any) -> Any:
            self.cost.calls += 1
            self.cost.processed += len(make_flat_list_of_images(images))
            return preprocess(images, *args, **kwargs)

        processor.image_processor.preprocess = counted

    def count_rollouts(self, trainer: GRPOTrainer) -> None:
        """Keep the time of rollouts and rewards apart from the update's."""
        prepare = trainer._prepare_inputs

        def timed(*args: Any) -> Any:
            start = time.process_time()
            prepared = prepare(*args)
            self.rollouts += time.process_time() - start
            return prepared

        trainer._prepare_inputs = timed

    def count_rewards(self, trainer: GRPOTrainer) -> None:
        """Keep the time of rewards, which are a part of the rollouts."""
        reward = trainer._calculate_rewards

        def timed(*args: Any, **kwargs: Any) -> Any:
            start = time.process_time()
            rewards = reward(*args, **kwargs)
            self.cost.reward_cpu_seconds += time.process_time() - start
            return rewards

        trainer._calculate_rewards = timed

    def tried(self, updates: dict[str, float], chosen: str) -> None:
        """Note what the update took by each way; all but the chosen one are no part of the step."""
        self.cost.updates, self.cost.chosen = updates, chosen
        self.aside += sum(seconds for way, seconds in updates.items() if way != chosen)

    def _decoder(self, _: Any, args: Any, kwargs: dict[str, Any]) -> None:
        self.cost.forwards += 1
        self.cost.positions += kwargs["inputs_embeds"].shape[:2].numel()

    def _tower(self, _: Any, args: Any, kwargs: dict[str, Any]) -> None:
        self.cost.encoded += images_encoded(args, kwargs)

    def on_train_begin(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        """Note what libraries and data have taken by now."""
        self.libraries = 0.0 if torch.accelerator.is_available() else _resident_mib()

    def on_step_begin(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        """Wait for this way's turn; every way samples with the same seed."""
        self.pipe.send("ready")
        self.pipe.recv()
        set_seed(self.seed + state.global_step)
        if torch.accelerator.is_available():
            torch.accelerator.reset_peak_memory_stats()
        self.cost, self.rollouts, self.aside = StepCost(libraries_mib=self.libraries), 0.0, 0.0
        self.start, self.cpu_start = time.perf_counter(), time.process_time()

    def on_step_end(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        """Report."""
        if torch.accelerator.is_available():
            torch.accelerator.synchronize()
            self.cost.peak_mib = torch.accelerator.max_memory_allocated() / 2**20
        else:
            self.cost.peak_mib = _resident_mib()
        self.cost.cpu_seconds = time.process_time() - self.cpu_start - self.aside
        self.cost.update_cpu_seconds = self.cost.cpu_seconds - self.rollouts
        self.cost.seconds = time.perf_counter() - self.start
        self.pipe.send(self.cost)


def _resident_mib() -> float:
    """Most memory that this process has had."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**10
