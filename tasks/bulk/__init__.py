"""Bulk: many requests from a file or an iterable, on idle slots, with the answers in a file or an iterator."""
