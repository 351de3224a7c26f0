"""Generates text for many requests at once: the loop, its requests, the rules for joining the batch, and a model's interface."""
