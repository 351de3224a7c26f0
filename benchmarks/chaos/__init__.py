"""Faults under load: ``make chaos``. What a run shows is in docs/reliability.md."""
