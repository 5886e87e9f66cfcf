"""`transformers serve` where torchvision is missing: `python serve_transformers.py CHECKPOINT PORT`."""

import sys

from transformers.cli.serve import Serve

import emor3.models.architectures  # noqa: F401  (takes the video part off the processor)

if __name__ == "__main__":
    Serve(sys.argv[1], device="cpu", host="127.0.0.1", port=int(sys.argv[2]))
