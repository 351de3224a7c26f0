"""All parts of a fleet on one machine, for development: which they are, how they are started and ended, what they print."""
