"""Predictors: ``(network, images) -> outputs`` on pictures of any size."""
