"""Benchmarks: ``python -m benchmarks``. Every ratio is one of things that were measured in turns, in one run, on one machine."""
