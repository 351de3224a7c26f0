"""Access to answers: the clients that may ask, their limits, and their priorities."""
