"""What a worker is, by its options and its machine: name, queues, slots, memory, and the models that it can serve."""
