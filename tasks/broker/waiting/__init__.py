"""Waiting for stored results: those of a task or a group, also where Redis is away or has lost them."""
