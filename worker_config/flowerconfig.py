"""Flower's settings, which ``celery -A tasks flower`` reads when it starts in this folder. They beat FLOWER_* variables."""

# Prompts are redacted before they reach Flower: by the producer and again by the worker (CELERY_MLX_SHOW_PROMPTS).

#: Flower shows arguments and ends requests, so it is for this machine, unless --address says otherwise.
address = "127.0.0.1"
#: The tasks that it keeps in memory; each takes about 4 kB.
max_tasks = 10_000
#: The seconds after which a worker that is away is taken off the list.
purge_offline_workers = 60
#: Workers answer within milliseconds; one that does not is busy being replaced.
inspect_timeout = 1_000.0
natural_time = True
#: All tasks have one name; with the time of arrival the newest come first.
tasks_columns = "uuid,state,kwargs,received,runtime,worker"
