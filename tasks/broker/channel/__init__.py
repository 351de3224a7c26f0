"""Kombu's channel, which connects, queues and fetches, and the messages that a worker has fetched and holds."""
