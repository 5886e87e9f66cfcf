"""Time and memory of looking for copies: images of a folder, and pairs among random hashes.

    python benchmarks/copies.py FOLDER [IMAGES]

Links to the images of FOLDER stand for as many images as asked for (10,000); one process, the CPU's clock. Memory is
the peak above that of the imports.
"""

import resource
import sys
import tempfile
import time
from itertools import cycle, islice
from pathlib import Path

import numpy as np

from emor3.data.copies.hashes import BYTES, near_links
from emor3.data.copies.overlaps import find_copies
from emor3.data.copies.scan import scan
from emor3.data.importers.sources import images_below

HASHES = 100_000


def peak() -> float:
    """Peak memory of this process in MiB."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


def main(folder: Path, number: int) -> None:
    """Print what both steps take."""
    imports = peak()
    with tempfile.TemporaryDirectory() as scratch:
        for place, image in enumerate(islice(cycle(list(images_below(folder))), number)):
            (Path(scratch) / f"{place:07d}{image.suffix}").symlink_to(image.resolve())
        start = time.process_time()
        found = scan([scratch], workers=1)
        seconds = time.process_time() - start
        print(f"{number:,} images: {seconds:.1f} CPU s, {number / seconds:.0f} a second, {peak() - imports:.0f} MiB")
        start = time.process_time()
        find_copies(found)
        print(f"their copies: {time.process_time() - start:.1f} CPU s, {peak() - imports:.0f} MiB")
    hashes = np.random.default_rng(0).integers(0, 256, (HASHES, BYTES), dtype=np.uint8)
    hashes[:, 0] &= 127
    start = time.process_time()
    pairs = sum(len(one) for one, _, _ in near_links(hashes))
    print(
        f"{HASHES:,} random hashes: {pairs} pairs, {time.process_time() - start:.1f} CPU s, {peak() - imports:.0f} MiB"
    )


if __name__ == "__main__":
    main(Path(sys.argv[1]), int(sys.argv[2]) if len(sys.argv) > 2 else 10_000)
