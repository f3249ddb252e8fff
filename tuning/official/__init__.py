"""To and from the official repositories: their weights as our checkpoints, our configurations as their settings."""
