"""emor3: teach vision-language models to reason about the emotion an image evokes (EMO-R3, CVPR 2026)."""

__version__ = "0.1.0"
