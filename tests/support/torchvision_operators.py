"""torchvision beside a torch of another build: imported before it, this lets it be imported without its compiled part.

For tests only. PyPI's torchvision is compiled for CUDA and does not load beside torch's CPU build; it then fails where
it registers fakes of operators that nobody defined. Nothing that processors and vision towers do here calls these.
"""

from importlib.util import find_spec
from pathlib import Path

import torch

DETECTIONS = "(Tensor dets, Tensor scores, float iou_threshold) -> Tensor"


def declare() -> None:
    """Declare the operators that torchvision registers fakes of in any case, if its compiled ones do not load."""
    found = find_spec("torchvision")
    if found is None or found.origin is None:
        return
    try:
        for compiled in Path(found.origin).parent.glob("_C*"):
            torch.ops.load_library(compiled)
    except OSError:
        for name in ("nms", "qnms"):
            torch.library.define(f"torchvision::{name}", DETECTIONS)


declare()
