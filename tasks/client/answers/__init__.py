"""The answer of a request: a dictionary, an instance of a Python type, or the shape of OpenAI's interface."""
