"""Evaluation of checkpoints: predictions, figures with intervals, and paired comparisons."""
