"""Finds or fetches a model's files: the hub, a folder, a GGUF file."""
