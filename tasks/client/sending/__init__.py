"""Sending a request: it is prepared, joins its group, is redacted for monitors, and names the queues of the tasks behind it."""
