"""The worker's side: Celery's pool and signals around engines, the publisher and the keeper. Never imports MLX."""
