"""What is measured beside each other: ours, the engine's limit, mlx-lm's server, and Celery used naively."""
