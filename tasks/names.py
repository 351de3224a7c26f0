"""Names that more than one floor needs."""

#: The inference task, as Celery knows it.
GENERATE = "tasks.generate"
