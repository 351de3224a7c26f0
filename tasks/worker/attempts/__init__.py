"""One request on this worker: its attempt, from the claim to its end."""
