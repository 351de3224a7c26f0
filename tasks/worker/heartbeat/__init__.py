"""A worker's sign of life, and the checks after each beat."""
