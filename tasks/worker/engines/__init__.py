"""The models in this worker's memory, and the processes that hold them."""
