"""Pretrain one configuration, probe it, keep it."""
