"""What can be configured: settings from the environment, Celery's options, tiers, and the model catalogue."""
