"""One HTTP connection: its server, the request's body, the client's end, and how events and errors are written to it."""
