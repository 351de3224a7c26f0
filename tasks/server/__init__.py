"""The ways to Redis: connections, subscriptions, scripts, pipelines, keys."""
