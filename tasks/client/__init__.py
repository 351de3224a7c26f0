"""A producer's side: parameters, sending, results, streams."""
