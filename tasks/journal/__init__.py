"""One request's journal: a Redis Stream that is replay buffer, record, fence and idempotency record at once."""
