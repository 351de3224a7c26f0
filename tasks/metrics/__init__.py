"""A worker's measurements, and how they add up over a fleet."""
