"""Generating text for many requests at once: the loop, its requests, who joins the batch, and what a model has to do."""
