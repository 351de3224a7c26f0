"""How Redis is spoken to: connections, scripts, pipelines, keys."""
