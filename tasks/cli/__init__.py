"""The sub-commands of ``celery -A tasks``, and the modules that only they need."""
