"""The pages that ``metrics`` serves: the fleet as Prometheus reads it."""
