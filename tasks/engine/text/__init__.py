"""Prompts from messages, and text from tokens."""
