"""The properties of a model: its names, files, size, tier and queue."""
