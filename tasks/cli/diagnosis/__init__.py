"""The checks of ``celery -A tasks doctor``, one module a subject; each gives lines that say what to do."""
