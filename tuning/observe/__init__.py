"""Those who watch a search: the terminal and TensorBoard."""
