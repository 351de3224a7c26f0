"""The code of a worker that Celery calls."""
