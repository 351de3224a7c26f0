"""Open requests wherever they are: lists them, looks for one, takes them out."""
