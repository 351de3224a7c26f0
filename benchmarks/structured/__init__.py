"""Answers by hundreds of schemas on a real model: see :mod:`benchmarks.structured.__main__`."""
