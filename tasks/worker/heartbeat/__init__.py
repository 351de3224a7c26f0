"""A worker's sign of life, and what it looks for with each beat."""
