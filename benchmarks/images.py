"""What opening and preparing images costs beside a step: CPU milliseconds an image, and their share of a step.

The photographs are those of a data folder, each scaled to so many visual tokens; a step prepares each of its B images
once for rollouts, log-probabilities and update, and opens it once more for the judge.
Run: python benchmarks/images.py DATA [--processor FOLDER] [--tokens 64 256 1024] [--images 64]
"""

import argparse
import statistics
import time
from collections.abc import Callable
from typing import Any

from emor3.data.folders import load_samples
from emor3.models.architectures import area_of_tokens, set_area
from emor3.models.checkpoints import resolve_checkpoint
from emor3.models.processors import load_processor, open_images
from emor3.printing import say
from emor3.stats.format import markdown_table, tenths


def milliseconds(work: Callable[[], Any]) -> tuple[float, Any]:
    """CPU milliseconds of some work, and what it made."""
    start = time.process_time()
    made = work()
    return 1000 * (time.process_time() - start), made


def measure(paths: list[str], processor: Any, tokens: int) -> tuple[float, float]:
    """Median CPU milliseconds to open an image, and to prepare it."""
    area = area_of_tokens(processor, tokens)
    set_area(processor, area, area)
    opened, prepared = [], []
    for path in paths:
        spent, images = milliseconds(lambda path=path: open_images([path], processor))
        opened.append(spent)
        spent, _ = milliseconds(lambda images=images: processor.image_processor(list(images.values())))
        prepared.append(spent)
    return statistics.median(opened), statistics.median(prepared)


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data")
    parser.add_argument("--processor", default="embedded", help="a checkpoint, whose weights are not read")
    parser.add_argument("--tokens", type=int, nargs="+", default=[64, 256, 1024])
    parser.add_argument("--images", type=int, default=64)
    options = parser.parse_args()
    samples = load_samples(options.data)
    paths = [samples[place].images[0] for place in range(min(options.images, len(samples)))]
    processor = load_processor(resolve_checkpoint(options.processor))
    rows = [(str(tokens), *map(tenths, measure(paths, processor, tokens))) for tokens in options.tokens]
    say(markdown_table(("visual tokens", "open, CPU ms", "prepare, CPU ms"), rows))


if __name__ == "__main__":
    main()
