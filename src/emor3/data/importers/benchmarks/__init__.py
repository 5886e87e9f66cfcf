"""Benchmarks of emotion in images: a reader for each, and what was published on it."""
