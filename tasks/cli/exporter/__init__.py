"""What ``metrics`` serves: the fleet as Prometheus reads it."""
