"""Who may ask for an answer, how much of it, and how urgently."""
