"""A policy's answers, their figures, and comparisons between policies."""
