"""Augmentations as batched functions on the device, and the policy that scales them by one strength."""
