"""The sub-commands of ``celery -A tasks``, and what only they need."""
