"""The properties of a worker by its options and its machine: name, queues, slots, memory, models."""
