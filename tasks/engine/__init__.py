"""The engine: one process for each loaded model, and the only importer of MLX. ``python -m tasks.engine`` starts it."""
