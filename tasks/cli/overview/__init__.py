"""The output of ``celery -A tasks fleet``: the state of the fleet on a screen, and as plain text."""
