"""How a model's answers are read: from its tokens to text, thoughts and calls."""
