"""From logits to tokens, for a whole batch in one call."""
