"""The model on MLX: loading, the batch, memory."""
