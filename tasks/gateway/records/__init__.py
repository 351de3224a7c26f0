"""All that gateways keep in Redis: API keys, a record of each request, limits and usage."""
