"""Vectors of texts: encoders and decoders, how their tokens are pooled, and the loop that steps them."""
