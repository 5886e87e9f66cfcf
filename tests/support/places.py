"""Where the checkout lies, and files that are no part of it."""

import os
from pathlib import Path

ROOT = Path(__file__).parents[2]
SUPPORT = ROOT / "tests" / "support"
QWEN = Path(os.environ.get("EMOR3_QWEN_FILES", ROOT.parent / "shared" / "qwen2_5_vl"))
"""Tokenizer and settings of Qwen2.5-VL as published, without weights; beside the checkout unless the variable says."""
