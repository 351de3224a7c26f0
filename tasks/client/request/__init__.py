"""The request that a producer writes: the parameters of each task and Celery's options, checked, with a remedy for each error."""
