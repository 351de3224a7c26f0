"""What a model is: its names, files, size, tier and queue."""
