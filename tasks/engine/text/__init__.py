"""From tokens to text: the detokenizer and stop strings."""
