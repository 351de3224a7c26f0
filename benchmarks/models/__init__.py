"""Which architectures are served rightly: ``python -m benchmarks.models`` computes tiny random models, alone and together."""
