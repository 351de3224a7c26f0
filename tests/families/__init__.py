"""The ten families of models that people download most, each as a tiny model: its architecture in mlx-lm, the shape of its
tokenizer, its chat template and its markers, and weights that say a script."""
