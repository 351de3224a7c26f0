"""The endpoints: from a body to requests, and from their pieces to OpenAI's shape of an answer."""
