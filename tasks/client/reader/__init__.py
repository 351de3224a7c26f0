"""Reading an answer: the entries of a journal become chunks, a stream and a status."""
