"""The HTTP door: OpenAI's interface in front of the queue. It keeps nothing that a restart would lose; any number may run."""
