"""Callbacks: they react to the trainer and never compute the model."""
