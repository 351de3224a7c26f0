"""The configuration: settings from the environment, Celery's options, tiers, and the model catalogue."""
