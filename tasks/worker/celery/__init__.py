"""What Celery calls in a worker."""
