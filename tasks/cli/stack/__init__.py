"""All parts of a fleet on one machine, for development: their start, their end, and their output."""
