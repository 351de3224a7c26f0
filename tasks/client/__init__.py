"""All that a producer holds: parameters, results, streams."""
