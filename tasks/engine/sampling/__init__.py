"""Samples tokens from logits, for a whole batch in one call."""
