"""What ``celery -A tasks doctor`` looks at, one module a subject; each gives lines that say what to do."""
