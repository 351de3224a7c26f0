"""A producer's way into a queue: the terms of a request, the call of ``put.lua``, and pages of calls."""
