"""Access to answers: who may ask, how much, and how urgently."""
