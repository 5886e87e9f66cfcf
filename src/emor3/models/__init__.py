"""Checkpoints, processors and fast forward passes of vision-language models."""
