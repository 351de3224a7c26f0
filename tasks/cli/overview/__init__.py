"""What ``celery -A tasks fleet`` shows: the state of the fleet, and its two forms, a screen and plain text."""
