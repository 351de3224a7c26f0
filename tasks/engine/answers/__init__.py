"""Reads a model's answers: from its tokens to text, thoughts and calls."""
