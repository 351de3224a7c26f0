"""What mlx-lm's code, or a model's files, get wrong."""
