"""Names that more than one floor needs."""

#: The inference task, as Celery knows it.
GENERATE = "tasks.generate"
#: The property of a message that a worker sends on after a task: it was accepted with that task, and no queue is too full for it.
ACCEPTED = "accepted"
